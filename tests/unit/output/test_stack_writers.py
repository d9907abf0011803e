# SPDX-License-Identifier: Apache-2.0
"""Stacks as a list, folded, and for speedscope."""

from __future__ import annotations

import io
import json
from typing import Any

import jsonschema
import pytest

from batchprobe.output import folded, speedscope, stack_list
from batchprobe.output.stack_profile import UNKNOWN, Frame, Profile, printable

READ, ENTRY = Frame("vfs_read+0x1c", is_kernel=True), Frame("do_syscall_64", is_kernel=True)
MAIN, LIBC = Frame("cat!main", is_kernel=False), Frame("libc.so.6!read", is_kernel=False)
STACKS = {
    (MAIN, LIBC, ENTRY, READ): 6,
    (MAIN, LIBC, ENTRY): 3,
    (ENTRY, READ): 1,
}
PROFILE = Profile("vfs_*", STACKS, lost=2)
EMPTY = Profile("nothing", {})

# The parts of speedscope's file-format-schema.json that are written, without anything else.
SPEEDSCOPE = {
    "type": "object",
    "required": ["$schema", "shared", "profiles"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": "https://www.speedscope.app/file-format-schema.json"},
        "exporter": {"type": "string"},
        "name": {"type": "string"},
        "activeProfileIndex": {"const": 0},
        "shared": {
            "type": "object",
            "required": ["frames"],
            "additionalProperties": False,
            "properties": {
                "frames": {
                    "type": "array",
                    "uniqueItems": True,
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "additionalProperties": False,
                        "properties": {"name": {"type": "string"}, "file": {"type": "string"}},
                    },
                }
            },
        },
        "profiles": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": [
                    *("type", "name", "unit", "startValue", "endValue", "samples", "weights")
                ],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "sampled"},
                    "name": {"type": "string"},
                    "unit": {"enum": ["none", "nanoseconds"]},
                    "startValue": {"type": "number"},
                    "endValue": {"type": "number"},
                    "samples": {
                        "type": "array",
                        "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    },
                    "weights": {"type": "array", "items": {"type": "number"}},
                },
            },
        },
    },
}


def listed(profile: Profile, top: int | None = None) -> str:
    out = io.StringIO()
    stack_list.write(profile, out, top=top)
    return out.getvalue()


def folded_lines(profile: Profile) -> list[str]:
    out = io.StringIO()
    folded.write(profile, out)
    return out.getvalue().split("\n")[:-1]


def speedscope_of(profile: Profile) -> dict[str, Any]:
    """What is written, once the schema and the meaning of its numbers hold."""
    out = io.StringIO()
    speedscope.write(profile, out)
    content: dict[str, Any] = json.loads(out.getvalue())
    jsonschema.Draft202012Validator(SPEEDSCOPE).validate(content)
    (one,) = content["profiles"]
    assert len(one["samples"]) == len(one["weights"])
    assert one["endValue"] - one["startValue"] == sum(one["weights"])
    used = {frame for sample in one["samples"] for frame in sample}
    assert used == set(range(len(content["shared"]["frames"])))
    return content


def test_a_list_begins_with_the_innermost_frame() -> None:
    assert (
        listed(PROFILE, top=2)
        == """\
6 calls, 60.0 %
    vfs_read+0x1c
    do_syscall_64
    --
    libc.so.6!read
    cat!main

3 calls, 30.0 %
    do_syscall_64
    --
    libc.so.6!read
    cat!main

10 calls in 3 stacks; not shown: 1 stack with 10.0 %; lost: 2 stacks
"""
    )


def test_a_list_of_all_stacks() -> None:
    text = listed(PROFILE)
    assert text.count("\n\n") == 3
    assert text.endswith("\n10 calls in 3 stacks; lost: 2 stacks\n")


def test_a_list_of_times() -> None:
    profile = Profile("t", {(READ,): 1_999_999_000, (ENTRY,): 1_000}, unit="ns")
    text = listed(profile)
    assert text.startswith("2 s, 100.0 %\n")
    assert "\n1.00 us, < 0.1 %\n" in text


def test_a_list_of_nothing() -> None:
    assert listed(EMPTY) == "0 calls in 0 stacks\n"


def test_a_terminal_gets_no_control_characters() -> None:
    evil = Frame("a\x1b[2J\nb\udc80ü", is_kernel=False)
    assert r"    a\x1b[2J\nb\udc80ü" in listed(Profile("t", {(evil,): 1})).splitlines()


def test_folded() -> None:
    assert folded_lines(PROFILE) == [
        "cat!main;libc.so.6!read;do_syscall_64_[k] 3",
        "cat!main;libc.so.6!read;do_syscall_64_[k];vfs_read+0x1c_[k] 6",
        "do_syscall_64_[k];vfs_read+0x1c_[k] 1",
    ]
    assert folded_lines(EMPTY) == []


def test_folded_names_do_not_break_lines_or_frames() -> None:
    names = ["operator new;\n", r"operator new\x3b\n", "operator new"]
    stacks: dict[tuple[Frame, ...], int] = {
        (Frame(name, is_kernel=False), MAIN): at for at, name in enumerate(names, 1)
    }
    lines = folded_lines(Profile("t", stacks))
    assert lines == sorted(lines)
    assert len({line.rpartition(" ")[0] for line in lines}) == len(names)
    assert all(line.count(";") == 1 for line in lines)
    assert r"operator new\x3b\n;cat!main 1" in lines


def test_speedscope() -> None:
    content = speedscope_of(PROFILE)
    frames = content["shared"]["frames"]
    (one,) = content["profiles"]
    # Frames and weights lead back to the profile.
    found = {
        tuple(Frame(frames[n]["name"], frames[n].get("file") == "[kernel]") for n in sample): weight
        for sample, weight in zip(one["samples"], one["weights"], strict=True)
    }
    assert found == STACKS
    assert (one["name"], one["unit"]) == ("vfs_*", "none")


def test_speedscope_of_times_and_of_nothing() -> None:
    (times,) = speedscope_of(Profile("t", STACKS, unit="ns"))["profiles"]
    assert times["unit"] == "nanoseconds"
    (nothing,) = speedscope_of(EMPTY)["profiles"]
    assert (nothing["samples"], nothing["endValue"]) == ([], 0)


def test_a_profile_has_only_what_weighs() -> None:
    profile = Profile("t", {(): 2, (UNKNOWN,): 3, (READ,): 0})
    assert profile.stacks == {(UNKNOWN,): 5}
    assert profile.total == 5
    with pytest.raises(ValueError, match="-1"):
        Profile("t", {(READ,): -1})


def test_a_function_is_a_name_without_offset() -> None:
    assert READ.function == "vfs_read"
    assert Frame("std::operator+(int)", is_kernel=False).function == "std::operator+(int)"


@pytest.mark.parametrize(("name", "shown"), [("vfs_read", "vfs_read"), ("a\tb", r"a\tb")])
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown
