# SPDX-License-Identifier: Apache-2.0
"""Finds the member that a path such as `skb->len` or `file.f_path.dentry.d_name.name` means.

"." and "->" mean the same: a pointer is followed, an embedded struct is not. `[3]` is an element of
an array, or of what a pointer points to.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from batchprobe.errors import UsageError
from batchprobe.functions.value_types import ValueKind, ValueType, ValueTypes
from batchprobe.kernel.btf_types import BtfType, Kind, Member

__all__ = ["MAX_STEPS", "RESULT", "Access", "PathError", "access"]

MAX_STEPS = 4
"""How many times a path may leave a pointer."""
RESULT = -1
"""Stands for the result, whose name in a path is `return`: no argument can have it."""

_RESULT_NAME = "return"
_PART = re.compile(r"(?:(?:^|\.|->)(?P<name>[A-Za-z_]\w*)|\[(?P<index>0[xX][0-9a-fA-F]+|[0-9]+)\])")
_COMPOSITES = frozenset({Kind.STRUCT, Kind.UNION})


class PathError(UsageError):
    """A path means nothing with these types; its text is a sentence."""


class Access(NamedTuple):
    """Where a value is found."""

    parameter: int
    """The index of the argument to start from, or RESULT."""
    steps: tuple[int, ...]
    """Offsets to add to the value and then read there, one after another; none for the argument.

    All but the last read a pointer, the last reads `type.size` bytes.
    """
    type: ValueType
    shift: int
    bits: int
    """The value is `raw >> shift`, of which the lowest `bits` count."""
    is_embedded: bool = False
    """Whether the value is text that begins where the last step leads, so that nothing is read."""


def access(
    values: ValueTypes, roots: Mapping[str, tuple[int, int]], result: int, path: str
) -> Access:
    """Where the value of a path is found.

    `roots` are the index and the number of the type of each argument, `result` is the number of the
    result's. Raises PathError.
    """
    parts = _parts(path)
    name = next(parts)
    if name == _RESULT_NAME:
        if not values.types.plain(result)[1].kind:
            raise PathError("the function returns nothing")
        walk = _Walk(values, RESULT, result, name)
    elif isinstance(name, str) and name in roots:
        walk = _Walk(values, *roots[name], name)
    else:
        known = f": it takes {', '.join(roots)}" if roots else ": it takes none"
        raise PathError(f"no argument named {name}{known}")
    for part in parts:
        if isinstance(part, str):
            walk.to_member(part)
        else:
            walk.to_element(part)
    return walk.end()


def _parts(path: str) -> Iterator[str | int]:
    at, text = 0, "".join(path.split())
    while at < len(text) or not at:
        found = _PART.match(text, at)
        if found is None or (not at and found["name"] is None):
            raise PathError(f"{path!r} is no path such as size, skb->len or comm[0]")
        at = found.end()
        yield found["name"] or int(found["index"], 0)


class _Walk:
    """A place on the way, and its type."""

    def __init__(self, values: ValueTypes, parameter: int, number: int, name: str) -> None:
        self._values = values
        self._types = values.types
        self._parameter = parameter
        self._number = number
        self._name = name
        self._steps: list[int] = []
        # In bits from where the last pointer points to; None as long as nothing is read.
        self._offset: int | None = None
        self._bits = 0

    def to_member(self, name: str) -> None:
        """Go on to a member of this struct, or of the one that is pointed to."""
        _, plain = self._types.plain(self._number)
        if plain.kind == Kind.POINTER:
            self._follow(plain.of)
            _, plain = self._types.plain(self._number)
            if plain.kind not in {*_COMPOSITES, Kind.FORWARD}:
                raise PathError(f"{self._name} is no pointer to a struct")
        elif plain.kind not in _COMPOSITES:
            raise PathError(f"{self._name} is no pointer")
        plain = self._complete(plain)
        found = self._find(plain, name)
        if found is None:
            title = self._values.name(self._number)
            similar = _similar(name, self._names(plain))
            raise PathError(f"{title} has no member {name}{similar}")
        if self._offset is None:
            raise PathError(f"{self._name} is a struct in registers: its members cannot be read")
        self._number, self._bits = found.type, found.bits
        self._offset += found.offset
        self._name += f".{name}"

    def to_element(self, index: int) -> None:
        """Go on to an element of this array, or of what is pointed to."""
        _, plain = self._types.plain(self._number)
        if plain.kind == Kind.POINTER:
            self._follow(plain.of)
        elif plain.kind == Kind.ARRAY:
            self._number, count = self._types.element(plain)
            if count and index >= count:
                raise PathError(f"{self._name} has {count} elements, from 0 to {count - 1}")
        else:
            raise PathError(f"{self._name} is neither an array nor a pointer")
        size = self._values.size(self._number)
        if not size or self._offset is None:
            raise PathError(f"{self._name} has elements of unknown size")
        self._offset += 8 * size * index
        self._name += f"[{index}]"

    def end(self) -> Access:
        """The value here."""
        value = self._values[self._number]
        if self._offset is None:
            return Access(self._parameter, (), value, 0, 8 * value.size)
        if len(self._steps) >= MAX_STEPS:
            raise PathError(f"{self._name} follows more than {MAX_STEPS} pointers")
        _, plain = self._types.plain(self._number)
        is_text = plain.kind == Kind.ARRAY and self._values.is_character(
            self._types.element(plain)[0]
        )
        # That is what names of files are (struct qstr); bytes of data are not const.
        if is_text or value.name == "const unsigned char *":
            value = value._replace(kind=ValueKind.STRING)
        offset, shift, bits = self._offset // 8, 0, 8 * value.size
        if self._bits:
            offset, shift = self._bit_field(value.size)
            bits = self._bits
        return Access(self._parameter, (*self._steps, offset), value, shift, bits, is_text)

    def _bit_field(self, size: int) -> tuple[int, int]:
        """Where to read `size` bytes that have the bit field, and its lowest bit in them."""
        assert self._offset is not None
        # As the compiler lays them out; in a packed struct they may begin at any byte.
        for begin in (self._offset // (8 * size) * size, self._offset // 8):
            shift = self._offset - 8 * begin
            if shift + self._bits <= 8 * size:
                # BTF counts bits from where the memory begins.
                if sys.byteorder == "big":
                    shift = 8 * size - shift - self._bits
                return begin, shift
        raise PathError(f"{self._name} is a bit field that no single read gets")

    def _follow(self, number: int) -> None:
        """Read the pointer that is here, to go on where it points to."""
        if self._offset is not None:
            self._steps.append(self._offset // 8)
        self._number, self._offset = number, 0

    def _complete(self, plain: BtfType) -> BtfType:
        """The struct or union itself, where a type only declares it."""
        if plain.kind != Kind.FORWARD:
            return plain
        kind = Kind.UNION if plain.flag else Kind.STRUCT
        found = self._types.find(plain.name, {kind})
        if len(found) != 1:
            title = self._values.name(self._number)
            why = "several of this name" if found else "none of this name"
            raise PathError(f"the members of {title} are not known: BTF has {why}")
        [self._number] = found
        return self._types[self._number]

    def _find(self, composite: BtfType, name: str) -> Member | None:
        """A member, also of anonymous structs and unions inside; its offset is from here."""
        for member in self._types.members(composite):
            if member.name == name:
                return member
            if not member.name:
                inner = self._find(self._types.plain(member.type)[1], name)
                if inner is not None:
                    return inner._replace(offset=member.offset + inner.offset)
        return None

    def _names(self, composite: BtfType) -> Iterator[str]:
        for member in self._types.members(composite):
            if member.name:
                yield member.name
            else:
                yield from self._names(self._types.plain(member.type)[1])


def _similar(name: str, among: Iterable[str]) -> str:
    # Imported here because only misspelled names need it.
    import difflib  # noqa: PLC0415

    names = difflib.get_close_matches(name, among, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(names)}?" if names else ""
