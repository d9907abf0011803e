# SPDX-License-Identifier: Apache-2.0
"""Types by number and by name, of the kernel and of a module."""

from __future__ import annotations

import pytest
from btf import CHAR, NEEDS_LITTLE_ENDIAN, Btf, kernel, read_recorded

from batchprobe.errors import UnsupportedError
from batchprobe.kernel.btf_types import BtfTypes, Encoding, Kind, Member

FUNCTIONS = {Kind.FUNCTION}
COMPOSITES = {Kind.STRUCT, Kind.UNION}


def everything(types: BtfTypes, numbers: range) -> list[object]:
    return [(types[number], types.named(types[number].name, {Kind.STRUCT})) for number in numbers]


@NEEDS_LITTLE_ENDIAN
def test_a_recorded_function() -> None:
    types = kernel()
    [number] = types.named("vfs_read", FUNCTIONS)
    prototype = types[types[number].of]
    assert prototype.kind == Kind.PROTOTYPE
    named = types.parameters(prototype)
    assert [name for name, _ in named] == ["file", "buf", "count", "pos"]
    _, pointer = types.plain(named[0][1])
    assert (pointer.kind, types[pointer.of].name) == (Kind.POINTER, "file")
    assert types.plain(prototype.of)[1].name == "long int"
    assert types.pointer_size == 8


@NEEDS_LITTLE_ENDIAN
def test_a_name_is_found_by_kind() -> None:
    types = kernel()
    [number] = types.named("sock", COMPOSITES)
    assert types[number].kind == Kind.STRUCT
    assert types[number].of == 776
    assert types.named("sock", FUNCTIONS) == []
    assert types.named("soc", COMPOSITES) == []
    assert types.named("", COMPOSITES) == []
    assert len(types.named("type_show", FUNCTIONS)) > 1


@NEEDS_LITTLE_ENDIAN
def test_types_survive_packing() -> None:
    types = kernel()
    module = BtfTypes.read(read_recorded("ext4"), types)
    numbers = range(module.first + 4)
    again = BtfTypes.unpacked(memoryview(types.packed))
    module_again = BtfTypes.unpacked(memoryview(module.packed), again)
    assert everything(module_again, numbers) == everything(module, numbers)
    assert module_again.named("ext4_sync_file", FUNCTIONS) != []


@NEEDS_LITTLE_ENDIAN
def test_a_module_continues_the_kernel() -> None:
    module = BtfTypes.read(read_recorded("ext4"), kernel())
    [number] = module.named("ext4_sync_file", FUNCTIONS)
    assert number >= module.first
    (name, pointer), *_ = module.parameters(module[module[number].of])
    # A name and a type that both are the kernel's.
    assert name == "file"
    assert kernel()[pointer].kind == Kind.POINTER
    assert module[module[pointer].of].name == "file"
    assert module.named("vfs_read", FUNCTIONS) == []
    assert module.find("file", COMPOSITES) == kernel().named("file", COMPOSITES)
    assert kernel().named("ext4_sync_file", FUNCTIONS) == []


def test_the_same_name_in_kernel_and_module() -> None:
    base = Btf()
    outer = base.composite("both")
    module = Btf(base)
    inner = module.composite("both")
    types = BtfTypes.read(base.raw)
    own = BtfTypes.read(module.raw, types)
    assert types.find("both", COMPOSITES) == [outer]
    assert own.find("both", COMPOSITES) == [inner]


def test_a_module_uses_a_name_of_the_kernel() -> None:
    base = Btf()
    base.composite("both")
    module = Btf(base)
    inner = module.composite("")
    module.words[0] = base.words[-3]
    own = BtfTypes.read(module.raw, BtfTypes.read(base.raw))
    assert own.named("both", COMPOSITES) == [inner]


def test_bit_fields_and_unions() -> None:
    btf = Btf()
    union = btf.composite("", ("low", CHAR, 0), ("high", CHAR, 0), kind=Kind.UNION)
    number = btf.composite("flags", ("one", CHAR, 3, 2), ("", union, 8), ("last", CHAR, 1 << 20))
    types = BtfTypes.read(btf.raw)
    assert types.members(types[number]) == [
        Member("one", CHAR, 3, 2),
        Member("", union, 8, 0),
        Member("last", CHAR, 1 << 20, 0),
    ]


def test_offsets_of_a_struct_without_bit_fields_have_32_bits() -> None:
    btf = Btf()
    far = 0x12345678
    number = btf.add(Kind.STRUCT, "large", 1 << 30, btf.name("far"), CHAR, far, entries=1)
    types = BtfTypes.read(btf.raw)
    assert types.members(types[number]) == [Member("far", CHAR, far, 0)]


@pytest.mark.parametrize(
    ("values", "wide", "signed", "expected"),
    [
        ((0, 1, 2), False, False, {0: "A0", 1: "A1", 2: "A2"}),
        ((-1, 1), False, True, {-1: "A0", 1: "A1"}),
        ((-1, 1), False, False, {0xFFFFFFFF: "A0", 1: "A1"}),
        ((1 << 63, 5), True, False, {1 << 63: "A0", 5: "A1"}),
        ((-(1 << 40), 5), True, True, {-(1 << 40): "A0", 5: "A1"}),
        ((7, 7), False, False, {7: "A0"}),
        ((), False, False, {}),
    ],
)
def test_enumerators(
    values: tuple[int, ...], wide: bool, signed: bool, expected: dict[int, str]
) -> None:
    btf = Btf()
    number = btf.enum("numbers", *values, wide=wide, signed=signed)
    types = BtfTypes.read(btf.raw)
    assert types.enumerators(types[number]) == expected


def test_an_enum_of_more_values_than_16_bits_count() -> None:
    # The count has 24 bits since Linux 7.1.
    btf = Btf()
    count = 0x10001
    words = [word for value in range(count) for word in (0, value)]
    btf.add(Kind.ENUM, "large", 4, *words, entries=count)
    after = btf.composite("after")
    types = BtfTypes.read(btf.raw)
    assert types.named("after", COMPOSITES) == [after]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 500])
def test_long_names(size: int) -> None:
    btf = Btf()
    number = btf.composite("n" * size)
    types = BtfTypes.read(btf.raw)
    assert types.named("n" * size, COMPOSITES) == [number]
    assert types.named("n" * (size + 1), COMPOSITES) == []


def test_what_follows_a_type_is_skipped() -> None:
    btf = Btf()
    array = btf.add(Kind.ARRAY, "", 0, CHAR, 2, 16)
    btf.add(Kind.VARIABLE, "jiffies", 2, 1)
    btf.add(Kind.SECTION, ".data", 8, 1, 0, 8, entries=1)
    btf.add(Kind.DECLARATION_TAG, "kfunc", 1, 0xFFFFFFFF)
    btf.add(Kind.FORWARD, "declared", 0)
    btf.add(Kind.FLOAT, "double", 8)
    btf.add(Kind.TYPE_TAG, "user", CHAR)
    last = btf.composite("last")
    types = BtfTypes.read(btf.raw)
    assert types.named("last", COMPOSITES) == [last]
    assert types.element(types[array]) == (CHAR, 16)
    assert types.encoding(types[CHAR]) == Encoding.SIGNED
    assert types.plain(0) == (0, types[0])
    assert types[0].kind == Kind.VOID


def test_pointers_of_a_32_bit_kernel() -> None:
    btf = Btf()
    btf.words.clear()
    btf.types = 0
    btf.integer("long unsigned int", 4)
    assert BtfTypes.read(btf.raw).pointer_size == 4


@pytest.mark.parametrize("kind", [20, 31, 127])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    btf = Btf()
    btf.add(kind, "new", 0)
    with pytest.raises(UnsupportedError, match=f"unknown kind {kind}"):
        BtfTypes.read(btf.raw)


def test_another_layout_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="another layout"):
        BtfTypes.read(b"\0\0" + Btf().raw[2:])
