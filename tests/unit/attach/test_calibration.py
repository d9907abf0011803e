# SPDX-License-Identifier: Apache-2.0
"""Calibration: the verdict on what a probe reports, and the programs that record it."""

from __future__ import annotations

import re
import struct
import sys

import pytest

from batchprobe import arch
from batchprobe.attach.calibration import VARIANTS, Variant, _wrong, _wrong_cpu
from batchprobe.attach.calibration_program import programs
from batchprobe.programs.source import LOOKUPS

ENTRY, RETURN, LINK = (
    Variant("event", "entry"),
    Variant("perf", "return"),
    Variant("multi", "entry"),
)
AT = 0x1000


@pytest.mark.parametrize(
    ("hits", "right", "name", "names", "variant", "words"),
    [
        (1, 1, AT + 1, (AT + 1, AT + 5), ENTRY, ""),
        # Another process called the function too.
        (3, 1, AT + 5, (AT + 1, AT + 5), ENTRY, ""),
        (0, 0, 0, (AT + 1,), ENTRY, "not counted"),
        (1, 0, AT + 1, (AT + 1,), ENTRY, "the first argument"),
        (1, 0, AT, (AT,), RETURN, "the result"),
        (1, 2, AT, (AT,), RETURN, "the result"),
        (1, 1, AT + 2, (AT + 1, AT + 5), ENTRY, r"reports \+2 from its function, not \+1, \+5"),
        (1, 1, AT, (AT,), LINK, ""),
        # Before 5.15 the program has nothing to report.
        (1, 1, 1, (AT,), RETURN, ""),
        (1, 1, 0, (AT,), RETURN, "reports -4096 from"),
        # On ppc64le, if a link was given the address of the symbol.
        (1, 1, AT + 12, (AT,), LINK, r"reports \+12 from its function, not \+0"),
    ],
)
def test_the_verdict_says_what_is_wrong(
    hits: int, right: int, name: int, names: tuple[int, ...], variant: Variant, words: str
) -> None:
    said = _wrong(hits, right, name, names, variant, AT)
    assert bool(said) == bool(words)
    assert re.search(words, said)


def test_the_verdict_names_a_wrong_cpu() -> None:
    assert not _wrong_cpu(1, 1)
    assert "on CPU 1 reads that it runs on CPU 0" in _wrong_cpu(0, 1)


def test_every_variant_is_tried_once() -> None:
    assert len(set(VARIANTS)) == len(VARIANTS) == 8
    assert Variant("multi", "after") not in VARIANTS


@pytest.mark.parametrize("file", [file for file in arch.ADAPTERS if file != "ia64"])
@pytest.mark.parametrize("is_return", [False, True])
def test_programs_read_where_the_adapter_says(file: str, is_return: bool) -> None:
    adapter = arch.adapter(file)
    found = programs(adapter, is_return=is_return, argument=0x3FABCDEF)
    assert set(found) == set(LOOKUPS)
    registers = adapter.registers
    wanted = registers.result if is_return else registers.arguments[0]
    load = {32: 0x61, 64: 0x79}[adapter.bits]
    context = 1 if sys.byteorder == "little" else 0
    for name, program in found.items():
        instructions = list(struct.iter_unpack("=BBhi", program.code))
        offsets = [
            offset
            for code, registers_, offset, _ in instructions
            if code == load and (registers_ >> 4 if context else registers_ & 0xF) == 6
        ]
        ip = [registers.instruction_pointer] if name == "by_ip" else []
        assert offsets == [wanted, *ip]
        # Every operand is the load of a map.
        assert all(instructions[at][0] == 0x18 for at, _ in program.operands)
        assert {name for _, name in program.operands} == {"hits"}
