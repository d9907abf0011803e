# SPDX-License-Identifier: Apache-2.0
"""What Python writes for the programs and reads of them has the layout that bpf/*.h declares."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from c_layout import CALLS, ERRORS, EVENTS, RESULTS, STACKS, VALUES, Header

from batchprobe.actions import (
    call_stacks,
    condition,
    errors,
    event_records,
    events,
    plan,
    results,
    stacks,
)

HEADERS = {"events": EVENTS, "calls": CALLS, "errors": ERRORS, "stacks": STACKS}


def offsets(packed: struct.Struct, names: list[str]) -> dict[str, int]:
    """Where a format has each of its members: which of them changes when that byte does."""
    zero = packed.unpack(bytes(packed.size))
    found: dict[str, int] = {}
    for at in range(packed.size):
        raw = bytearray(packed.size)
        raw[at] = 1
        for name, one, other in zip(names, packed.unpack(raw), zero, strict=True):
            if one != other:
                found.setdefault(name, at)
    return found


def test_limits_of_plans() -> None:
    constants = VALUES.constants
    assert constants["STEPS"] == plan._STEPS
    assert constants["COMPARISONS"] == plan._COMPARISONS
    assert constants["TEXTS"] == plan._TEXTS
    assert constants["MAX_SHOWN"] == plan.MAX_SHOWN
    assert (constants["RESULT"], constants["DURATION"]) == (plan._RESULT, plan._DURATION)
    # What is read may not overwrite these two.
    assert plan.MAX_SHOWN <= plan._KEPT <= min(plan._RESULT, plan._DURATION)
    assert max(plan._RESULT, plan._DURATION) < constants["VALUES"]
    assert constants["STEP_PREVIOUS"] == plan._PREVIOUS
    # The program masks these instead of comparing them.
    for name in ("VALUES", "COMPARISONS", "REGISTERS", "TEXTS"):
        assert constants[name] & (constants[name] - 1) == 0


def test_words_of_plans() -> None:
    constants = VALUES.constants
    flags = (plan._KEEP, plan._SIGNED, plan._SWAP, plan._TEXT, plan._USER)
    names = ("KEEP", "SIGNED", "SWAP", "TEXT", "USER")
    assert flags == tuple(constants[f"STEP_{name}"] for name in names)
    operations = ("EQUAL", "BELOW", "BELOW_OR_EQUAL", "LESS", "LESS_OR_EQUAL")
    assert [getattr(plan, f"_{name}") for name in operations] == [
        constants[f"IS_{name}"] for name in operations
    ]
    assert {
        condition.ACCEPT: constants["ACCEPT"],
        condition.REJECT: constants["REJECT"],
    } == plan._VERDICTS
    # A condition may be cut in two, each with its own verdicts.
    assert condition.MAX_COMPARISONS <= plan._COMPARISONS <= min(plan._VERDICTS.values())


def test_plans() -> None:
    head = VALUES.offsets("plan")
    step, comparison = head.pop("step"), head.pop("comparison")
    assert offsets(plan._PLAN, list(head)) == head
    assert step == plan._PLAN.size
    assert comparison == step + plan._STEPS * plan._STEP.size
    assert VALUES.size("plan") == plan.PLAN_SIZE == len(plan.NOTHING)
    for name, packed in (("step", plan._STEP), ("comparison", plan._COMPARISON)):
        declared = VALUES.offsets(name)
        declared.pop("unused")
        assert offsets(packed, list(declared)) == declared
        assert packed.size == VALUES.size(name)


def test_records_of_events() -> None:
    declared = VALUES.offsets("event")
    values, text = declared.pop("value"), declared.pop("text")
    declared.pop("unused")
    assert offsets(event_records._HEADER, list(declared)) == declared
    assert values == event_records._HEADER.size
    assert text == event_records._TEXT_AT
    assert VALUES.constants["VALUES"] == event_records._VALUES
    slot = VALUES.structs["event"].members["slot"]
    assert (slot.offset, slot.size) == (event_records._SLOT_AT, event_records._SLOT.size)
    # A size is a byte, with the NUL.
    assert VALUES.constants["TEXT_SIZE"] < 1 << 8
    assert VALUES.structs["event"].members["failed"].size * 8 >= VALUES.constants["VALUES"]


def test_maps_of_events() -> None:
    tally = EVENTS.names("tally")
    assert len(tally) == events._TALLY
    for index, name in enumerate(tally):
        assert getattr(events, f"_{name.upper()}") == index
    budget = EVENTS.names("budget")
    assert budget.index("limit") == events._LIMIT
    assert budget.index("rate") == events._RATE
    assert EVENTS.size("budget") == 8 * events._BUDGET
    assert EVENTS.size("event") == 8 * events._EVENT


def test_open_calls() -> None:
    assert CALLS.constants["DEPTH"] == call_stacks._DEPTH
    assert CALLS.size("thread") == 8 * call_stacks._THREAD_CELLS


def test_errors() -> None:
    declared = ERRORS.offsets("failure")
    assert offsets(errors._FAILURE, list(declared)) == declared
    assert ERRORS.size("failure") == errors._FAILURE.size
    kinds = (results._IS_INT, results._IS_LONG, results._IS_UNKNOWN)
    assert kinds == tuple(RESULTS.constants[f"IS_{name}"] for name in ("INT", "LONG", "UNKNOWN"))
    assert RESULTS.constants["IS_NO_ERROR"] == 0
    assert RESULTS.constants["MAX_ERRNO"] == event_records._MAX_ERRNO


def test_stacks() -> None:
    assert STACKS.size("stack") == 8 * stacks._STACK
    for name, packed in (("stack_key", stacks._KEY), ("stack_sum", stacks._SUM)):
        declared = STACKS.offsets(name)
        assert offsets(packed, list(declared)) == declared
        assert packed.size == STACKS.size(name)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.skipif(struct.calcsize("P") != 8, reason="BPF aligns u64 as 64-bit machines do")
@pytest.mark.parametrize("name", HEADERS)
def test_a_compiler_agrees(name: str, tmp_path: Path) -> None:
    header = HEADERS[name]
    asserted = [f"sizeof(struct {of}) == {header.size(of)}" for of in header.structs]
    asserted += [
        f"offsetof(struct {of}, {member}) == {at}"
        for of in header.structs
        for member, at in header.offsets(of).items()
    ]
    assert compiles(header, asserted, tmp_path) == ""
    assert "assert" in compiles(header, [*asserted, "sizeof(u64) == 4"], tmp_path)


def compiles(header: Header, asserted: list[str], folder: Path) -> str:
    """Compile the declarations of a header with assertions about them; returns the errors."""
    types = {"u8": "unsigned char", "u16": "unsigned short", "u32": "unsigned", "s32": "int"}
    types["u64"] = "unsigned long long"
    lines = ["#include <stddef.h>", *(f"typedef {c} {name};" for name, c in types.items())]
    lines += header.declarations
    lines += [f'_Static_assert({each}, "");' for each in asserted]
    (source := folder / "layout.c").write_text("\n".join([*lines, ""]))
    return subprocess.run(
        ("cc", "-fsyntax-only", source), capture_output=True, text=True, check=False
    ).stderr
