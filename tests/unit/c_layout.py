# SPDX-License-Identifier: Apache-2.0
"""The constants and structs of bpf/*.h as their text has them, laid out as clang does for BPF."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

BPF = Path(__file__).resolve().parents[2] / "bpf"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^#define (\w+)[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"((?:struct )?\w+)\s+(.*)", re.DOTALL)
_MEMBER = re.compile(r"(\w+)(?:\[(.*)\])?")
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
_SIZES = {"char": 1, "u8": 1, "s8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8}


class Member(NamedTuple):
    """Where a member is, in bytes; `length` is 0 for what is no array."""

    type: str
    offset: int
    size: int
    length: int


class Struct(NamedTuple):
    """A struct of a header."""

    members: dict[str, Member]
    size: int
    alignment: int


class Header:
    """One header, on top of those it needs."""

    def __init__(self, name: str, *bases: Header) -> None:
        text = _COMMENT.sub("", (BPF / name).read_text())
        self.constants: dict[str, int] = {}
        self.structs: dict[str, Struct] = {}
        self.declarations: list[str] = []
        """Those in C, without the programs."""
        for base in bases:
            self.constants |= base.constants
            self.structs |= base.structs
            self.declarations += base.declarations
        for found in _DEFINE.finditer(text):
            if _NUMBER.fullmatch(found[2]):
                self.constants[found[1]] = int(found[2], 0)
                self.declarations.append(found[0])
        for found in _STRUCT.finditer(text):
            self.structs[found[1]] = self._struct(found[2])
            self.declarations.append(found[0])

    def size(self, name: str) -> int:
        """The bytes of a struct."""
        return self.structs[name].size

    def offsets(self, name: str) -> dict[str, int]:
        """Where the members of a struct are."""
        return {member: one.offset for member, one in self.structs[name].members.items()}

    def names(self, name: str) -> list[str]:
        """The members of a struct in order."""
        return list(self.structs[name].members)

    def _struct(self, body: str) -> Struct:
        members: dict[str, Member] = {}
        at, alignment = 0, 1
        for line in filter(None, map(str.strip, body.split(";"))):
            type_, names = _LINE.fullmatch(line).groups()  # type: ignore[union-attr]
            struct = self.structs.get(type_.removeprefix("struct "))
            size = struct.size if struct else _SIZES[type_]
            aligned = struct.alignment if struct else size
            alignment = max(alignment, aligned)
            at = -(-at // aligned) * aligned
            for each in names.split(","):
                name, text = _MEMBER.fullmatch(each.strip()).groups()  # type: ignore[union-attr]
                length = self._number(text) if text else 0
                members[name] = Member(type_, at, size, length)
                at += size * (length or 1)
        return Struct(members, -(-at // alignment) * alignment, alignment)

    def _number(self, text: str) -> int:
        """`N`, `31`, or `(N + 1) * M`."""
        if found := re.fullmatch(r"\((\w+) \+ (\w+)\) \* (\w+)", text):
            first, second, third = map(self._number, found.groups())
            return (first + second) * third
        return self.constants[text] if text in self.constants else int(text, 0)


VALUES = Header("values.h")
EVENTS = Header("events.h", VALUES)
CALLS = Header("calls.h")
RESULTS = Header("results.h")
ERRORS = Header("errors.h", RESULTS)
STACKS = Header("stacks.h")
