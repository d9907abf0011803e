# SPDX-License-Identifier: Apache-2.0
"""Bytecode whose maps and constants are still names, and how it becomes a loaded program."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from batchprobe.sys import bpf

__all__ = ["Program", "from_json"]

_INSTRUCTION_SIZE = 8
_OFFSET_AT, _IMMEDIATE_AT = 2, 4  # in struct bpf_insn, include/uapi/linux/bpf.h
_CLASS, _LDX = 0x07, 0x01


class Program(NamedTuple):
    """Bytecode with open operands."""

    name: str
    code: bytes
    operands: tuple[tuple[int, str], ...]
    """Index of an instruction, and the name of the map or number it needs."""

    def load(self, values: Mapping[str, int], *, attach_type: int = 0) -> int:
        """Load it with these map descriptors and numbers; returns its descriptor.

        Raises KeyError for an operand without a value, VerifierError if the kernel refuses it.
        """
        return bpf.prog_load(self.name, self.code_with(values), attach_type=attach_type)

    def code_with(self, values: Mapping[str, int]) -> bytes:
        """The bytecode with its operands filled in: the offset of a load, else the immediate."""
        code = bytearray(self.code)
        for index, name in self.operands:
            at = index * _INSTRUCTION_SIZE
            if code[at] & _CLASS == _LDX:
                struct.pack_into("=h", code, at + _OFFSET_AT, values[name])
            else:
                immediate = values[name].to_bytes(4, sys.byteorder)
                code[at + _IMMEDIATE_AT : at + _INSTRUCTION_SIZE] = immediate
        return bytes(code)


def from_json(entries: Mapping[str, Any]) -> dict[str, Program]:
    """Programs by name, from {NAME: {"code": HEX, "operands": [[INDEX, NAME], ...]}}."""
    return {
        name: Program(
            name,
            bytes.fromhex(entry["code"]),
            tuple((index, operand) for index, operand in entry["operands"]),
        )
        for name, entry in entries.items()
    }
