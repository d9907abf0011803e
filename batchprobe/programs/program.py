# SPDX-License-Identifier: Apache-2.0
"""Bytecode whose maps and constants are still names, and how it becomes a loaded program."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping

from batchprobe.sys import bpf

__all__ = [
    "ARGUMENTS_AT",
    "BUCKET_SHIFT",
    "EPOCH",
    "FIELD_AT",
    "HASH_BITS",
    "INSTRUCTION_POINTER_AT",
    "MAPS_ID",
    "MAX_BUCKET_BITS",
    "OFFSETS",
    "RESULT_AT",
    "SESSION_IS_RETURN",
    "STACK_MOVES",
    "STACK_POINTER_AT",
    "Program",
    "from_text",
    "to_text",
]

HASH_BITS = 32
"""Width of the hash of an instruction pointer; its highest bits select the bucket."""
MAX_BUCKET_BITS = 18
"""log2 of the largest number of buckets: 4 MiB of them."""

# Operands that the loader fills in, besides maps and the constants of actions and filters.
BUCKET_SHIFT = "BUCKET_SHIFT"
EPOCH = "EPOCH"
INSTRUCTION_POINTER_AT = "INSTRUCTION_POINTER_AT"
STACK_POINTER_AT = "STACK_POINTER_AT"
FIELD_AT = "FIELD_AT"
ARGUMENTS_AT = tuple(f"ARGUMENT_{number}_AT" for number in range(8))
RESULT_AT = "RESULT_AT"
OFFSETS = frozenset({INSTRUCTION_POINTER_AT, STACK_POINTER_AT, FIELD_AT, *ARGUMENTS_AT, RESULT_AT})
"""Those that are offsets of a load."""
MAPS_ID = "MAPS_ID"
"""Tells the maps of one kernel object from those of others."""
STACK_MOVES = "STACK_MOVES"
"""What is added to the stack pointer from a function's entry to its return: see bpf/calls.h."""
SESSION_IS_RETURN = "SESSION_IS_RETURN"
"""The BTF ID of the kernel function bpf_session_is_return(): see bpf/by_session.c."""

_INSTRUCTION_SIZE = 8
_REGISTERS_AT, _OFFSET_AT, _IMMEDIATE_AT = 1, 2, 4  # in struct bpf_insn, include/uapi/linux/bpf.h
_CLASS, _LDX = 0x07, 0x01
_CALL = 0x85
_PSEUDO_KFUNC_CALL = 2
# The source register, a bit-field.
_KFUNC_REGISTERS = _PSEUDO_KFUNC_CALL << 4 if sys.byteorder == "little" else _PSEUDO_KFUNC_CALL


class Program:
    """Bytecode with open operands: for each, the index of an instruction, and the name of the map
    or number that it needs.
    """

    __slots__ = ("code", "name", "operands")

    def __init__(self, name: str, code: bytes, operands: tuple[tuple[int, str], ...]) -> None:
        self.name = name
        self.code = code
        self.operands = operands

    def load(
        self,
        values: Mapping[str, int],
        *,
        prog_type: int = bpf.PROG_TYPE_KPROBE,
        attach_type: int = 0,
    ) -> int:
        """Load it with these map descriptors and numbers; returns its descriptor.

        Raises KeyError for an operand without a value, VerifierError if the kernel refuses it.
        """
        code = self.code_with(values)
        return bpf.prog_load(self.name, code, prog_type=prog_type, attach_type=attach_type)

    def code_with(self, values: Mapping[str, int]) -> bytes:
        """The bytecode with its operands filled in: the offset of a load, else the immediate.

        A call with an operand becomes one of a kernel function.
        """
        code = bytearray(self.code)
        for index, name in self.operands:
            at = index * _INSTRUCTION_SIZE
            if code[at] & _CLASS == _LDX:
                struct.pack_into("=h", code, at + _OFFSET_AT, values[name])
            else:
                if code[at] == _CALL:
                    code[at + _REGISTERS_AT] = _KFUNC_REGISTERS
                immediate = values[name].to_bytes(4, sys.byteorder)
                code[at + _IMMEDIATE_AT : at + _INSTRUCTION_SIZE] = immediate
        return bytes(code)


# Not JSON, whose import takes a start longer than all parsing: a program is a line "program NAME
# HEX", followed by a line "operand INDEX NAME" for each operand.


def to_text(programs: Iterable[Program]) -> str:
    """Programs as lines of text."""
    lines = []
    for program in programs:
        lines.append(f"program {program.name} {program.code.hex()}\n")
        lines += [f"operand {index} {name}\n" for index, name in program.operands]
    return "".join(lines)


def from_text(text: str) -> dict[str, Program]:
    """The programs of `to_text`, by name. Raises ValueError for any other text."""
    programs: dict[str, Program] = {}
    for part in text.split("program ")[1:]:
        first, *operands = part.splitlines()
        name, code = first.split()
        words = [line.split() for line in operands]
        if any(word[:1] != ["operand"] for word in words):
            raise ValueError(f"not the operands of a program: {operands}")
        pairs = tuple((int(index), operand) for _, index, operand in words)
        programs[name] = Program(name, bytes.fromhex(code), pairs)
    return programs
