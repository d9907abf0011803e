# SPDX-License-Identifier: Apache-2.0
"""Names, kinds and sizes of values."""

from __future__ import annotations

import pytest
from btf import CHAR, LONG, Btf

from batchprobe.functions.value_types import ValueKind, ValueType, ValueTypes
from batchprobe.kernel.btf_types import BtfTypes, Encoding, Kind


def value(btf: Btf, number: int) -> ValueType:
    return ValueTypes(BtfTypes.read(btf.raw))[number]


def chain(btf: Btf, *kinds: int, to: int) -> int:
    """The type that these make of another one, the outermost first."""
    for kind in reversed(kinds):
        to = btf.add(kind, "", 0, to, LONG, 3) if kind == Kind.ARRAY else btf.add(kind, "", to)
    return to


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        ((), "char"),
        ((Kind.POINTER,), "char *"),
        ((Kind.POINTER, Kind.POINTER), "char **"),
        ((Kind.POINTER, Kind.CONST), "const char *"),
        ((Kind.CONST, Kind.POINTER), "char *const"),
        ((Kind.POINTER, Kind.CONST, Kind.POINTER, Kind.CONST), "const char *const *"),
        ((Kind.CONST, Kind.VOLATILE), "const volatile char"),
        ((Kind.RESTRICT, Kind.POINTER), "char *restrict"),
        ((Kind.POINTER, Kind.TYPE_TAG), "char *"),
        ((Kind.ARRAY,), "char[3]"),
        ((Kind.ARRAY, Kind.ARRAY), "char[3][3]"),
        ((Kind.ARRAY, Kind.POINTER), "char *[3]"),
        ((Kind.POINTER, Kind.ARRAY), "char (*)[3]"),
        ((Kind.POINTER, Kind.POINTER, Kind.ARRAY), "char (**)[3]"),
    ],
)
def test_names_are_as_c_writes_them(kinds: tuple[int, ...], name: str) -> None:
    btf = Btf()
    assert value(btf, chain(btf, *kinds, to=CHAR)).name == name


def test_names_of_what_has_none() -> None:
    btf = Btf()
    prototype = btf.add(Kind.PROTOTYPE, "", 0)
    numbers = [
        chain(btf, Kind.POINTER, to=0),
        chain(btf, Kind.POINTER, to=prototype),
        chain(btf, Kind.POINTER, to=btf.composite("")),
        btf.enum(""),
        chain(btf, Kind.POINTER, to=btf.add(Kind.FORWARD, "later", 0)),
        chain(btf, Kind.POINTER, to=btf.add(Kind.FORWARD, "later", 0, flag=True)),
    ]
    values = ValueTypes(BtfTypes.read(btf.raw))
    assert [values[number].name for number in numbers] == [
        "void *",
        "function *",
        "struct {...} *",
        "enum {...}",
        "struct later *",
        "union later *",
    ]


@pytest.mark.parametrize(
    ("name", "size", "encoding", "kind"),
    [
        ("int", 4, Encoding.SIGNED, ValueKind.INTEGER),
        ("unsigned char", 1, 0, ValueKind.INTEGER),
        ("signed char", 1, Encoding.SIGNED, ValueKind.INTEGER),
        ("signed char", 1, Encoding.SIGNED | Encoding.CHARACTER, ValueKind.CHARACTER),
        ("char", 1, 0, ValueKind.CHARACTER),
        ("_Bool", 1, Encoding.BOOLEAN, ValueKind.BOOLEAN),
        ("__int128", 16, Encoding.SIGNED, ValueKind.OTHER),
    ],
)
def test_integers(name: str, size: int, encoding: int, kind: ValueKind) -> None:
    btf = Btf()
    number = btf.add(Kind.TYPEDEF, "named", btf.integer(name, size, encoding))
    expected = ValueType("named", kind, size)
    if kind is not ValueKind.OTHER:
        expected = expected._replace(is_signed=bool(encoding & Encoding.SIGNED))
    assert value(btf, number) == expected


@pytest.mark.parametrize(
    ("name", "is_network_order"), [("__be16", True), ("__be64", True), ("__le32", False)]
)
def test_network_order_is_known_by_typedef(name: str, is_network_order: bool) -> None:
    btf = Btf()
    inner = btf.add(Kind.TYPEDEF, name, LONG)
    outer = btf.add(Kind.CONST, "", btf.add(Kind.TYPEDEF, "port", inner))
    found = value(btf, outer)
    assert found.name == "const port"
    assert found.is_network_order is is_network_order


def test_text_is_a_pointer_to_char_only() -> None:
    btf = Btf()
    u8 = btf.add(Kind.TYPEDEF, "u8", btf.integer("unsigned char", 1))
    text = btf.add(Kind.TYPEDEF, "text", CHAR)
    kinds = []
    numbers = [chain(btf, Kind.POINTER, Kind.CONST, to=to) for to in (u8, text)]
    numbers.append(chain(btf, Kind.POINTER, Kind.POINTER, to=CHAR))
    for number in numbers:
        kinds.append(value(btf, number).kind)
    assert kinds == [ValueKind.POINTER, ValueKind.STRING, ValueKind.POINTER]


@pytest.mark.parametrize(
    ("values", "are_flags"),
    [
        ((1, 2, 4), True),
        ((0, 1, 2, 4, 8, 15), True),
        ((0, 1 << 10, 1 << 20, 1 << 31), True),
        ((0, 1, 2), False),
        ((1, 2, 3, 4), False),
        ((0, 1, 2, 3, 4, 5, 6, 7, 8), False),
        ((1, 1, 2, 2), False),
        ((-1, 1, 2, 4), False),
        ((), False),
    ],
)
def test_flags(values: tuple[int, ...], are_flags: bool) -> None:
    btf = Btf()
    found = value(btf, btf.enum("options", *values, signed=min(values, default=0) < 0))
    assert found.is_flags is are_flags
    assert set(found.enumerators) == set(values)


def test_wide_enums() -> None:
    btf = Btf()
    found = value(btf, btf.enum("wide", 1 << 40, 1, wide=True))
    assert (found.kind, found.size) == (ValueKind.ENUM, 8)
    assert found.enumerators == {1 << 40: "A0", 1: "A1"}


def test_what_is_no_number() -> None:
    btf = Btf()
    numbers = {
        btf.composite("pair", size=24): 24,
        btf.composite("either", kind=Kind.UNION, size=8): 8,
        btf.add(Kind.FLOAT, "double", 8): 8,
        btf.add(Kind.ARRAY, "", 0, LONG, LONG, 5): 40,
        btf.add(Kind.ARRAY, "", 0, LONG, LONG, 0): 0,
        btf.add(Kind.FORWARD, "declared", 0): 0,
    }
    values = ValueTypes(BtfTypes.read(btf.raw))
    for number, size in numbers.items():
        assert (values[number].kind, values[number].size) == (ValueKind.OTHER, size)
