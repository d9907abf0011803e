# SPDX-License-Identifier: Apache-2.0
"""Types for the tests: recorded ones, and ones of their own that no recorded kernel has."""

from __future__ import annotations

import struct
import sys
from functools import cache

import pytest
from recorded import recorded

from batchprobe.kernel.btf_types import BtfTypes, Kind

NEEDS_LITTLE_ENDIAN = pytest.mark.skipif(
    sys.byteorder == "big", reason="recorded on a little-endian machine"
)
CHAR, LONG = 1, 2
"""The numbers of two types that every `Btf` has."""


def read_recorded(module: str | None) -> bytes:
    """The recorded BTF of the kernel or of ext4."""
    return recorded("debian-12", f"btf/{module or 'vmlinux'}")


@cache
def kernel() -> BtfTypes:
    """The recorded types of the kernel."""
    return BtfTypes.read(read_recorded(None))


class Btf:
    """A BTF in the making, or one of a module that continues another."""

    def __init__(self, base: Btf | None = None) -> None:
        self.names = b"\0" if base is None else b""
        self.inherited = len(base.names) if base else 0
        self.words: list[int] = []
        self.types: int = base.types if base else 0
        if base is None:
            self.integer("char", 1, encoding=1)
            self.integer("long unsigned int", 8)

    def name(self, text: str) -> int:
        """Add a name and return where it is; that of what has none is 0."""
        if not text:
            return 0
        at = self.inherited + len(self.names)
        self.names += text.encode() + b"\0"
        return at

    def add(
        self, kind: int, name: str, of: int, *words: int, entries: int = 0, flag: bool = False
    ) -> int:
        """Add a type and return its number."""
        info = flag << 31 | kind << 24 | entries
        self.words += [self.name(name), info, of, *words]
        self.types += 1
        return self.types

    def integer(self, name: str, size: int, encoding: int = 0) -> int:
        """Add an integer type."""
        return self.add(Kind.INT, name, size, encoding << 24 | 8 * size)

    def composite(
        self,
        name: str,
        *members: tuple[str, int, int] | tuple[str, int, int, int],
        kind: int = Kind.STRUCT,
        size: int = 64,
    ) -> int:
        """Add a struct of members: name, type, offset in bits, and the width of a bit field."""
        words: list[int] = []
        for member, number, offset, *bits in members:
            words += [self.name(member), number, offset | sum(bits) << 24]
        return self.add(kind, name, size, *words, entries=len(members), flag=True)

    def enum(self, name: str, *values: int, wide: bool = False, signed: bool = False) -> int:
        """Add an enum whose values are named A0, A1 and so on."""
        words: list[int] = []
        for index, value in enumerate(values):
            words += [self.name(f"A{index}"), value & 0xFFFFFFFF]
            words += [value >> 32 & 0xFFFFFFFF] if wide else []
        kind, size = (Kind.ENUM64, 8) if wide else (Kind.ENUM, 4)
        return self.add(kind, name, size, *words, entries=len(values), flag=signed)

    def function(self, name: str, *parameters: tuple[str, int], result: int = 0) -> int:
        """Add a function and its prototype."""
        words: list[int] = []
        for parameter, number in parameters:
            words += [self.name(parameter), number]
        prototype = self.add(Kind.PROTOTYPE, "", result, *words, entries=len(parameters))
        return self.add(Kind.FUNCTION, name, prototype)

    @property
    def raw(self) -> bytes:
        """The bytes of this BTF."""
        size = 4 * len(self.words)
        header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, size, size, len(self.names))
        return header + struct.pack(f"={len(self.words)}I", *self.words) + self.names
