# SPDX-License-Identifier: Apache-2.0
"""The flame graph: what is drawn where, what it says, and that anything can read it."""

from __future__ import annotations

import io
import random
import re
import time
from collections import Counter
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from batchprobe.output import flame_graph
from batchprobe.output.stack_profile import Frame, Profile

SVG = "{http://www.w3.org/2000/svg}"
STYLE = files("batchprobe.output").joinpath("flame_graph.css").read_text()
SCRIPT = files("batchprobe.output").joinpath("flame_graph.js").read_text()
MAIN, LIBC = Frame("cat!main", is_kernel=False), Frame("libc.so.6!read", is_kernel=False)
ENTRY, READ = Frame("do_syscall_64", is_kernel=True), Frame("vfs_read+0x1c", is_kernel=True)
PROFILE = Profile(
    "vfs_*", {(MAIN, LIBC, ENTRY, READ): 600, (MAIN, LIBC, ENTRY): 300, (ENTRY, READ): 100}
)


class Drawn:
    """One frame as a reader sees it; positions are shares of the width, and rows from the root."""

    def __init__(self, node: ElementTree.Element, bottom: int) -> None:
        self.title = node.findtext(f"{SVG}title") or ""
        self.name = self.title.split("\n")[0]
        self.label = node.findtext(f"{SVG}text") or ""
        self.colour = node.attrib["class"]
        self.left = float(node.attrib["x"].removesuffix("%")) / 100
        self.width = float(node.attrib["width"].removesuffix("%")) / 100
        self.start, self.weight = int(node.attrib["data-s"]), int(node.attrib["data-w"])
        row, rest = divmod(bottom - int(node.attrib["y"]), 17)
        assert rest == 0
        self.row = row


def written(profile: Profile) -> str:
    out = io.StringIO()
    flame_graph.write(profile, out)
    return out.getvalue()


def drawn(text: str) -> list[Drawn]:
    nodes = ElementTree.fromstring(text).findall(f"{SVG}svg")  # noqa: S314 (our own)
    bottom = max(int(node.attrib["y"]) for node in nodes)
    return [Drawn(node, bottom) for node in nodes]


def said(text: str, kind: str) -> str:
    """The text of this class."""
    root = ElementTree.fromstring(text)  # noqa: S314
    return "".join(node.text or "" for node in root.iterfind(f"{SVG}text[@class='{kind}']"))


def many_stacks(number: int, depth: int) -> Profile:
    rng = random.Random(1)
    stacks = {
        tuple(
            Frame(f"f{at}_{(n * 7919 >> at // 9) % (1 + 3 * at)}", is_kernel=True)
            for at in range(depth)
        ): rng.randint(1, 100)
        for n in range(number)
    }
    assert len(stacks) == number
    return Profile("many", stacks)


def test_frames_stand_on_what_called_them() -> None:
    boxes = {(box.row, box.name): box for box in drawn(written(PROFILE))}
    found = {place: (box.left, box.width) for place, box in boxes.items()}
    assert found == {
        (0, "all"): (0, 1),
        (1, "cat!main"): (0, 0.9),
        (2, "libc.so.6!read"): (0, 0.9),
        (3, "do_syscall_64"): (0, 0.9),
        # What the caller itself weighs is on the left.
        (4, "vfs_read+0x1c"): (0.3, 0.6),
        (1, "do_syscall_64"): (0.9, 0.1),
        (2, "vfs_read+0x1c"): (0.9, 0.1),
    }
    assert boxes[4, "vfs_read+0x1c"].title == "vfs_read+0x1c\n600 calls, 60.0 %"
    assert boxes[4, "vfs_read+0x1c"].label == "vfs_read+0x1c"


def test_every_frame_lies_within_its_caller_and_beside_the_others() -> None:
    boxes = drawn(written(many_stacks(300, 40)))
    assert len({box.row for box in boxes}) > 10
    for row in range(1, max(box.row for box in boxes) + 1):
        lower = [box for box in boxes if box.row == row - 1]
        ordered = [box for box in boxes if box.row == row]
        assert all(one.start + one.weight <= other.start for one, other in pairwise(ordered))
        for box in ordered:
            callers = [
                one
                for one in lower
                if one.start <= box.start and box.start + box.weight <= one.start + one.weight
            ]
            assert len(callers) == 1


def test_what_is_too_narrow_is_left_out_and_counted() -> None:
    rare: dict[tuple[Frame, ...], int] = {
        (ENTRY, Frame(f"rare_{n}", is_kernel=True)): 1 for n in range(3)
    }
    text = written(Profile("t", {(ENTRY,): 10_000, **rare}, lost=5))
    assert [box.name for box in drawn(text)] == ["all", "do_syscall_64"]
    assert said(text, "notes") == "not shown: 3 frames below 0.1 % of the width; lost: 5 stacks"
    # The limit itself is drawn.
    at_the_limit = Profile("t", {(ENTRY,): 999, (READ,): 1})
    assert "vfs_read+0x1c" in {box.name for box in drawn(written(at_the_limit))}
    assert said(written(at_the_limit), "notes") == ""


def test_text_fits_its_frame() -> None:
    long = Frame("a_function_with_a_very_long_name" * 3, is_kernel=True)
    short = Frame("f", is_kernel=True)
    profile = Profile("t", {(long,): 100, (short,): 20, (READ,): 4, (ENTRY,): 876})
    labels = {box.name: box.label for box in drawn(written(profile))}
    assert labels[long.name].endswith("…")
    assert long.name.startswith(labels[long.name][:-1])
    assert labels[short.name] == "f"
    assert labels[READ.name] == ""
    for box in drawn(written(profile)):
        assert len(box.label) * 7.3 <= max(box.width * 1200 - 6, 0)


def test_names_are_escaped() -> None:
    name = 'std::map<int, "&">\x01]]>\n</svg>'
    text = written(Profile("<title>", {(Frame(name, is_kernel=False),): 1}))
    (_, box) = drawn(text)
    assert box.name == 'std::map<int, "&">\\x01]]>\\n</svg>'
    assert said(text, "title") == "<title>"


def test_the_same_profile_gives_the_same_bytes() -> None:
    profile = many_stacks(200, 20)
    turned = Profile(profile.title, dict(reversed(profile.stacks.items())))
    assert written(profile) == written(turned)


def test_a_function_has_one_colour() -> None:
    kernel = [Frame(name, is_kernel=True) for name in ("vfs_read", "vfs_read+0x9", "vfs_write")]
    user = Frame("vfs_read", is_kernel=False)
    colours = [
        box.colour
        for box in drawn(written(Profile("t", {(frame,): 1 for frame in [*kernel, user]})))
        if box.name != "all"
    ]
    by_name = sorted([*kernel, user])
    found = dict(zip(by_name, colours, strict=True))
    assert found[kernel[0]] == found[kernel[1]]
    assert {found[frame][0] for frame in kernel} == {"k"}
    assert found[user][0] == "u"
    spread = Counter(
        box.colour
        for box in drawn(
            written(Profile("t", {(Frame(f"f{n}", is_kernel=True),): 1 for n in range(400)}))
        )
    )
    assert len(spread) == 9


def test_an_empty_profile_is_drawn() -> None:
    text = written(Profile("nothing", {}))
    (box,) = drawn(text)
    assert (box.name, box.width, box.weight) == ("all", 1, 0)
    assert said(text, "status") == "0 calls in 0 stacks"


def test_times_have_units() -> None:
    (_, box) = drawn(written(Profile("t", {(READ,): 2_500_000}, unit="ns")))
    assert box.title == "vfs_read+0x1c\n2.50 ms, 100.0 %"


def test_the_file_needs_nothing_else() -> None:
    text = written(PROFILE)
    assert re.findall(r"https?://[^\"']+", text.replace(SCRIPT, "")) == [
        "http://www.w3.org/2000/svg"
    ]
    assert not re.search(r"\b(href|src|url\(|@import)\b", text)
    assert not {"]]>", "\r"} & {STYLE, SCRIPT}
    for asset in (STYLE, SCRIPT):
        assert "]]>" not in asset
        assert asset in text


def test_the_script_finds_what_is_written() -> None:
    """It reads the file by these names; a browser alone would notice that one is gone."""
    text = written(PROFILE)
    for found in re.findall(r'querySelector\("\.(\w+)"\)', SCRIPT):
        assert f'class="{found}"' in text
    for found in re.findall(r"dataset\.(\w+)", SCRIPT):
        assert f"data-{found}=" in text
    for found in re.findall(r'classList\.\w+\("(\w+)"', SCRIPT):
        assert f".flame .{found}" in STYLE


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_is_readable_on_every_colour(mode: str) -> None:
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    rules = dict(re.findall(r"\.flame (\S+(?: rect| text)?) \{ fill: (#\w{6})", light))
    if mode == "dark":
        override = dict(re.findall(r"\.flame (\S+(?: rect| text)?) \{ fill: (#\w{6})", dark))
        assert override.keys() == rules.keys()
        rules = override
    text = luminance(rules.pop("text"))
    assert len(rules) == 2 * 8 + 3
    for fill in rules.values():
        low, high = sorted((text, luminance(fill)))
        # WCAG 2, level AA.
        assert (high + 0.05) / (low + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_thousands_of_deep_stacks_take_less_than_a_second() -> None:
    profile = many_stacks(5000, 127)
    before = time.process_time()
    text = written(profile)
    assert time.process_time() - before < 1
    assert len(text) < 1 << 20
