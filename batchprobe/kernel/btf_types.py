# SPDX-License-Identifier: Apache-2.0
"""Types of the kernel or of a module, by number and by name: what the bytes of a BTF mean.

The layout is Documentation/bpf/btf.rst. The bytes are of this machine's byte order.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from itertools import count
from typing import NamedTuple
from zlib import crc32

from batchprobe.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Self

__all__ = ["QUALIFIERS", "BtfType", "BtfTypes", "Encoding", "Kind", "Member"]


class Kind:
    """What a type is: BTF_KIND_* of include/uapi/linux/btf.h. VOID stands for "no type"."""

    VOID = 0
    INT = 1
    POINTER = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FORWARD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNCTION = 12
    PROTOTYPE = 13
    VARIABLE = 14
    SECTION = 15
    FLOAT = 16
    DECLARATION_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Encoding:
    """BTF_INT_* of include/uapi/linux/btf.h."""

    SIGNED = 1
    CHARACTER = 2
    BOOLEAN = 4


QUALIFIERS = frozenset(
    {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG},
)
"""What only names or marks another type."""

_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, hdr_len, type and str: off, len
_MAGIC = 0xEB9F
# struct btf_type: name_off, info, size or type. Since Linux 7.1 the kind has 7 bits and the count
# 24; before, the bits that were added are 0.
_TYPE_WORDS = 3
_COUNT = 0xFFFFFF
_KIND = 0x7F
# What follows a type: this many words, or this many for each of its `count`.
_FIXED = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VARIABLE: 1, Kind.DECLARATION_TAG: 1}
_EACH = {
    Kind.STRUCT: 3,
    Kind.UNION: 3,
    Kind.ENUM: 2,
    Kind.PROTOTYPE: 2,
    Kind.SECTION: 3,
    Kind.ENUM64: 3,
}
_KINDS = range(1, 20)
_INDEXED = frozenset({Kind.INT, Kind.STRUCT, Kind.UNION, Kind.FUNCTION})
_PACKED = struct.Struct("=3I")  # bytes of the BTF, number of types, number of indexed names
_SHORT = 64


class BtfType(NamedTuple):
    """One type, without what follows it."""

    kind: int
    name: str
    flag: bool
    """A signed enum, a union that is only declared, a struct that may have bit fields."""
    entries: int
    """How many members, enumerators or parameters it has."""
    of: int
    """The size in bytes of a type that has one, the number of the type it refers to of others."""
    at: int
    """Where in `words` this is followed by more."""
    words: memoryview


class Member(NamedTuple):
    """A member of a struct or union."""

    name: str
    type: int
    offset: int
    """In bits."""
    bits: int
    """The width of a bit field, 0 of other members."""


_VOID = BtfType(Kind.VOID, "void", False, 0, 0, 0, memoryview(b""))


class BtfTypes:
    """The types of a BTF. Those of a module continue the numbers and names of the kernel's."""

    __slots__ = (
        *("_base", "_index", "_known", "_known_names", "_names", "_names_from", "_raw", "_starts"),
        *("_words", "first"),
    )

    def __init__(
        self,
        raw: memoryview,
        starts: array[int] | memoryview,
        index: array[int] | memoryview,
        base: BtfTypes | None,
    ) -> None:
        self._raw = raw
        self._words, self._names = _sections(raw)
        self._known: dict[int, BtfType] = {}
        self._known_names: dict[int, str] = {0: ""}
        self._starts = starts
        # CRC-32 of a name in the upper half, the number of a type in the lower; sorted.
        self._index = index
        self._base = base
        self.first: int = 1 if base is None else base.first + len(base._starts)
        """The lowest number of a type here. Number 0 is no type, and stands in no BTF."""
        self._names_from: int = 0 if base is None else base._names_from + len(base._names)

    @classmethod
    def read(cls, raw: bytes, base: BtfTypes | None = None) -> Self:
        """Find the types in the bytes of a BTF: one walk, 0.06 s for a kernel's 100,000 types.

        Raises UnsupportedError if it has types of an unknown kind, whose size is unknown.
        """
        view = memoryview(raw)
        words, names = _sections(view)
        types = cls(view, array("I"), array("Q"), base)
        first, inherited = types.first, types._names_from
        # Lists, because an index into them costs least.
        fixed = [_TYPE_WORDS + _FIXED.get(kind, 0) for kind in range(_KIND + 1)]
        each = [_EACH.get(kind, 0) for kind in range(_KIND + 1)]
        indexed = [kind in _INDEXED for kind in range(_KIND + 1)]
        starts: list[int] = []
        named: list[tuple[int, int]] = []
        at, end = 0, len(words)
        for number in count(first):
            if at >= end:
                break
            starts.append(at)
            info = words[at + 1]
            kind = info >> 24 & _KIND
            if indexed[kind]:
                named.append((words[at], number))
            at += fixed[kind] + each[kind] * (info & _COUNT)
        if strange := {words[start + 1] >> 24 & _KIND for start in starts}.difference(_KINDS):
            raise UnsupportedError(f"this kernel's BTF has types of unknown kind {min(strange)}")
        text = bytes(names)
        index = []
        for name, number in named:
            # Anonymous, or a name that the kernel's types have too: then it is in the base.
            own = name - inherited
            found = text[own : text.index(0, own)] if own >= 0 else types._text(name)
            if found:
                index.append(crc32(found) << 32 | number)
        index.sort()
        return cls(view, array("I", starts), array("Q", index), base)

    @classmethod
    def unpacked(cls, packed: memoryview, base: BtfTypes | None = None) -> Self:
        """The types that `packed` describes, which stays in use."""
        size, types, names = _PACKED.unpack_from(packed)
        starts = _PACKED.size + size
        index = starts + 4 * types
        return cls(
            packed[_PACKED.size : starts],
            packed[starts:index].cast("I"),
            packed[index : index + 8 * names].cast("Q"),
            base,
        )

    @property
    def packed(self) -> bytes:
        """All this as bytes: to start with these takes no walk."""
        sizes = _PACKED.pack(len(self._raw), len(self._starts), len(self._index))
        return b"".join((sizes, self._raw, self._starts, self._index))

    @property
    def pointer_size(self) -> int:
        """Bytes of a pointer, and of a long."""
        if self._base is not None:
            return self._base.pointer_size
        for name in ("long unsigned int", "unsigned long"):
            for number in self.named(name, {Kind.INT}):
                return self[number].of
        return struct.calcsize("P")

    def named(self, name: str, kinds: Collection[int]) -> list[int]:
        """Numbers of the types of this name: functions, structs, unions and integers. Without
        those of the kernel if this is a module's.
        """
        key = crc32(name.encode()) << 32
        index = self._index
        found = []
        for at in range(bisect_left(index, key), len(index)):
            if index[at] >> 32 != key >> 32:
                break
            number = index[at] & 0xFFFFFFFF
            one = self[number]
            if one.kind in kinds and one.name == name:
                found.append(number)
        return found

    def find(self, name: str, kinds: Collection[int]) -> list[int]:
        """Like `named`, then of the kernel if a module has none."""
        found = self.named(name, kinds)
        return found if found or self._base is None else self._base.find(name, kinds)

    def __getitem__(self, number: int) -> BtfType:
        if number < self.first:
            return _VOID if self._base is None else self._base[number]
        found = self._known.get(number)
        if found is None:
            found = self._known[number] = self._type(self._starts[number - self.first])
        return found

    def _type(self, at: int) -> BtfType:
        words = self._words
        info = words[at + 1]
        return BtfType(
            info >> 24 & _KIND,
            self._name(words[at]),
            bool(info >> 31),
            info & _COUNT,
            words[at + 2],
            at + _TYPE_WORDS,
            words,
        )

    def plain(self, number: int) -> tuple[int, BtfType]:
        """A type without its typedefs and qualifiers, after its number."""
        while (found := self[number]).kind in QUALIFIERS:
            number = found.of
        return number, found

    def members(self, of: BtfType) -> list[Member]:
        """The members of a struct or union."""
        words = of.words
        members = []
        for at in range(of.at, of.at + 3 * of.entries, 3):
            bits, offset = divmod(words[at + 2], 1 << 24) if of.flag else (0, words[at + 2])
            members.append(Member(self._name(words[at]), words[at + 1], offset, bits))
        return members

    def parameters(self, prototype: BtfType) -> list[tuple[str, int]]:
        """Names, which may be empty, and types of a function's parameters. "..." has no type."""
        words, at = prototype.words, prototype.at
        return [
            (self._name(words[one]), words[one + 1])
            for one in range(at, at + 2 * prototype.entries, 2)
        ]

    def element(self, of: BtfType) -> tuple[int, int]:
        """The type of an array's elements, and how many it has; 0 if it ends a struct and grows."""
        return of.words[of.at], of.words[of.at + 2]

    def encoding(self, of: BtfType) -> int:
        """How an integer is meant: bits of Encoding."""
        return of.words[of.at] >> 24

    def enumerators(self, of: BtfType) -> dict[int, str]:
        """Names of an enum's values; of those with several names, the first."""
        words, wide = of.words, of.kind == Kind.ENUM64
        step, limit = (3, 1 << 64) if wide else (2, 1 << 32)
        names: dict[int, str] = {}
        for at in range(of.at, of.at + step * of.entries, step):
            value = words[at + 1] | (words[at + 2] << 32 if wide else 0)
            if of.flag and value >= limit >> 1:
                value -= limit
            names.setdefault(value, self._name(words[at]))
        return names

    def _name(self, at: int) -> str:
        # Most types have none, and many parameters have the same.
        found = self._known_names.get(at)
        if found is None:
            found = self._known_names[at] = self._text(at).decode(errors="replace")
        return found

    def _text(self, at: int) -> bytes:
        if at < self._names_from and self._base is not None:
            return self._base._text(at)
        at -= self._names_from
        size = _SHORT
        # A view of a mapped file has no index().
        while b"\0" not in (part := bytes(self._names[at : at + size])) and len(part) == size:
            size *= 2
        return part.partition(b"\0")[0]


def _sections(raw: memoryview) -> tuple[memoryview, memoryview]:
    """The words of the types, and the names."""
    magic, _, _, header, types, types_size, names, names_size = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise UnsupportedError("this kernel's BTF has another layout")
    types += header
    names += header
    return raw[types : types + types_size].cast("I"), raw[names : names + names_size]
