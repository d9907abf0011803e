# SPDX-License-Identifier: Apache-2.0
"""Command lines that are read without typer are read as typer reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchprobe.cli import app
from batchprobe.cli.args import AttachOptions, read_usual
from batchprobe.cli.signals import Stop

NUMBERS = ["5", "0", "1.5", "0.01", "0.009", "-1", "1e3", "inf", "nan", "1_0", " 5", "05", "5.", "",
           "5s", "5m", "0.5h", "500ms", "9ms", "1.s", "5 s", "s", "ms", "5ss", "5sm"]  # fmt: skip
WORDS = ["auto", "multi", "event", "perf", "entry", "after", "normal", "expedited", "AUTO", "x", ""]
FREE = ["true", "sleep 1", "out.json", "-", "--", "--json", "-x", "a=b", "=", "ü", "attach", ""]
VALUES = {
    **dict.fromkeys(("-d", "--duration", "-i", "--interval", "--top"), NUMBERS),
    **dict.fromkeys(("--abi", "--placement", "--barrier"), WORDS),
    **dict.fromkeys(("-c", "--command", "-o", "--output"), FREE),
}


@st.composite
def options(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(VALUES)))
    value = draw(st.sampled_from(VALUES[name]))
    form = draw(st.sampled_from(["two", "two", "two", "equals", "together", "alone"]))
    return {
        "two": [name, value],
        "equals": [f"{name}={value}"],
        "together": [name + value],
        "alone": [name],
    }[form]


FLAGS = st.sampled_from(
    [["--json"], ["--strict"], ["-v"], ["--verbose"], ["--help"], ["--jso"], ["--json=1"]]
)
FILES = st.sampled_from([["funcs.txt"], ["-"], ["--"], ["a b"], [""], ["-funcs"], ["--=x"]])
LINES = st.lists(
    st.one_of(options(), options(), FLAGS, FILES, st.just(["funcs.txt"])), max_size=6
).map(lambda words: ["attach", *(word for group in words for word in group)])


@pytest.fixture
def by_typer(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], AttachOptions]]:
    """What typer parsed; nothing if it refused the line."""
    read: list[tuple[list[str], AttachOptions]] = []

    def attach(lists: Sequence[str], asked: AttachOptions, _stop: object) -> int:
        read.append((list(lists), asked))
        return 0

    monkeypatch.setattr(app, "attach_lists", attach)
    return read


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(line=LINES)
def test_lines_are_read_as_typer_reads_them(
    line: list[str], by_typer: list[tuple[list[str], AttachOptions]]
) -> None:
    usual = read_usual(line)
    if usual is None:
        return
    by_typer.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["batchprobe", *line])
        assert app.run(object.__new__(Stop)) == 0
    files, asked = usual
    assert [(lists, vars(read)) for lists, read in by_typer] == [(files, vars(asked))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("funcs.txt", AttachOptions()),
        ("funcs.txt -d 5", AttachOptions(duration=5.0)),
        ("-d 0 funcs.txt --json", AttachOptions(duration=0.0, as_json=True)),
        ("funcs.txt --interval=0.5 --strict", AttachOptions(interval=0.5, strict=True)),
        ("--abi event --placement entry funcs.txt", AttachOptions(abi="event", placement="entry")),
        ("--barrier=normal --top 7 funcs.txt", AttachOptions(barrier="normal", top=7)),
        ("funcs.txt -o out -c true", AttachOptions(output="out", command="true")),
        ("funcs.txt -v", AttachOptions(verbose=True)),
        ("funcs.txt -d 5s", AttachOptions(duration=5.0)),
        ("funcs.txt -d 1.5m -i 500ms", AttachOptions(duration=90.0, interval=0.5)),
        ("funcs.txt -d 2h", AttachOptions(duration=7200.0)),
    ],
)
def test_usual_lines_are_read(line: str, expected: AttachOptions) -> None:
    usual = read_usual(["attach", *line.split()])
    assert usual is not None
    assert (usual[0], vars(usual[1])) == (["funcs.txt"], vars(expected))


@pytest.mark.parametrize(
    "line",
    ["", "attach", "attach --help", "doctor", "--version", "attach -d 5", "attach f -d",
     "attach -x f", "attach f -d5", "attach f -d 1 -d 2", "attach f -d x", "attach f --abi all",
     "attach f --top 5s", "attach f -i 9ms", "attach f -d s", "attach f -d 5ss",
     "attach -- f"],
)  # fmt: skip
def test_the_rest_is_left_to_typer(line: str) -> None:
    assert read_usual(line.split()) is None
