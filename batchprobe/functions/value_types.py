# SPDX-License-Identifier: Apache-2.0
"""What a value of a kernel type is: its name as C writes it, its size, how to show it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from batchprobe.kernel.btf_types import QUALIFIERS, BtfType, BtfTypes, Encoding, Kind

__all__ = ["ValueKind", "ValueType", "ValueTypes"]

_NETWORK_ORDER = frozenset({"__be16", "__be32", "__be64"})
# What fits a register, and so one value.
_SIZES = frozenset({1, 2, 4, 8})
_COMPOSITES = {Kind.STRUCT: "struct ", Kind.UNION: "union "}
_ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
_WORDS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}
# gcc names integers otherwise than people do.
_INTEGERS = {
    "short int": "short",
    "short unsigned int": "unsigned short",
    "long int": "long",
    "long unsigned int": "unsigned long",
    "long long int": "long long",
    "long long unsigned int": "unsigned long long",
}
# Enums of flags may also name a mask or two. An enum of the numbers 1 to 4 has three powers of two
# in four, and must not count as flags.
_FEWEST_FLAGS = 3
_FLAGS_SHARE = 0.75


class ValueKind(Enum):
    """How a value is shown."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    CHARACTER = "character"
    ENUM = "enum"
    POINTER = "pointer"
    STRING = "string"
    """A pointer to char."""
    OTHER = "other"
    """No single number: a struct or union by value, an array, a float, a 128-bit integer."""


class ValueType(NamedTuple):
    """The type of an argument, a result or a member."""

    name: str
    """As C writes it, typedefs kept; a pointer to a function is "function *"."""
    kind: ValueKind
    size: int
    """Bytes in memory: 1, 2, 4 or 8, unless the kind is OTHER."""
    is_signed: bool = False
    is_network_order: bool = False
    enumerators: Mapping[int, str] = {}
    """Names of an enum's values."""
    is_flags: bool = False
    """Whether an enum's values are flags, to be combined."""


class ValueTypes:
    """The values of one BTF's types. Each type is looked at once."""

    def __init__(self, types: BtfTypes) -> None:
        self.types = types
        self._pointer_size = types.pointer_size
        self._known: dict[int, ValueType] = {}

    def __getitem__(self, number: int) -> ValueType:
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._value(number)
        return known

    def _value(self, number: int) -> ValueType:
        types = self.types
        name = self.name(number)
        _, plain = types.plain(number)
        if plain.kind == Kind.POINTER:
            kind = ValueKind.STRING if self.is_character(plain.of) else ValueKind.POINTER
            return ValueType(name, kind, self._pointer_size)
        if plain.kind in _ENUMS and plain.of in _SIZES:
            named = types.enumerators(plain)
            return ValueType(
                name,
                ValueKind.ENUM,
                plain.of,
                is_signed=plain.flag,
                enumerators=named,
                is_flags=_are_flags(named),
            )
        if plain.kind == Kind.INT and plain.of in _SIZES:
            encoding = types.encoding(plain)
            kind = ValueKind.INTEGER
            if encoding & Encoding.BOOLEAN:
                kind = ValueKind.BOOLEAN
            elif self.is_character(number):
                kind = ValueKind.CHARACTER
            return ValueType(
                name,
                kind,
                plain.of,
                is_signed=bool(encoding & Encoding.SIGNED),
                is_network_order=self._is_network_order(number),
            )
        return ValueType(name, ValueKind.OTHER, self.size(number))

    def name(self, number: int) -> str:
        """A type as C writes it, without the name of a variable."""
        types = self.types
        # What C writes behind the type's own name, and before it.
        behind, before = "", ""
        while True:
            one = types[number]
            if one.kind == Kind.POINTER:
                behind = f"*{behind}"
                if types[one.of].kind == Kind.ARRAY:
                    behind = f"({behind})"
            elif one.kind == Kind.ARRAY:
                behind += f"[{types.element(one)[1] or ''}]"
            elif word := _WORDS.get(one.kind):
                if types[one.of].kind == Kind.POINTER:
                    behind = f"{word} {behind}".rstrip()
                else:
                    before += f"{word} "
            elif one.kind != Kind.TYPE_TAG:
                gap = " " if behind and not behind.startswith("[") else ""
                return f"{before}{_own_name(one)}{gap}{behind}"
            number = types.element(one)[0] if one.kind == Kind.ARRAY else one.of

    def size(self, number: int) -> int:
        """The bytes of a type in memory; 0 if it is unknown."""
        _, plain = self.types.plain(number)
        if plain.kind == Kind.ARRAY:
            element, count = self.types.element(plain)
            return count * self.size(element)
        if plain.kind == Kind.POINTER:
            return self._pointer_size
        has_size = plain.kind in {Kind.INT, Kind.FLOAT, *_COMPOSITES, *_ENUMS}
        return plain.of if has_size else 0

    def is_character(self, number: int) -> bool:
        """Whether this is char, which stands for text. The kernel's u8 and s8 are numbers."""
        _, plain = self.types.plain(number)
        if plain.kind != Kind.INT:
            return False
        return plain.name == "char" or bool(self.types.encoding(plain) & Encoding.CHARACTER)

    def _is_network_order(self, number: int) -> bool:
        while (one := self.types[number]).kind in QUALIFIERS:
            if one.kind == Kind.TYPEDEF and one.name in _NETWORK_ORDER:
                return True
            number = one.of
        return False


def _own_name(one: BtfType) -> str:
    if one.kind == Kind.PROTOTYPE:
        return "function"
    if one.kind == Kind.FORWARD:
        return ("union " if one.flag else "struct ") + one.name
    if one.kind == Kind.INT:
        return _INTEGERS.get(one.name, one.name)
    word = "enum " if one.kind in _ENUMS else _COMPOSITES.get(one.kind, "")
    return word + (one.name or "{...}")


def _are_flags(named: Mapping[int, str]) -> bool:
    values = [value for value in named if value]
    flags = [value for value in values if value > 0 and not value & value - 1]
    return len(flags) >= _FEWEST_FLAGS and len(flags) > _FLAGS_SHARE * len(values)
