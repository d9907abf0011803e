# SPDX-License-Identifier: Apache-2.0
"""Plans: what a model of bpf/values.h reads and decides with them."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pytest
from btf import NEEDS_LITTLE_ENDIAN, read_recorded
from c_layout import VALUES
from hypothesis import given, settings
from hypothesis import strategies as st
from values_model import ACCEPT, REJECT, WORD, Memory, Run, elements, fields, signed

from batchprobe.actions.condition import ALL_BITS, ConditionError
from batchprobe.actions.condition_parse import parse
from batchprobe.actions.event_records import Decoder, converter
from batchprobe.actions.plan import MAX_SHOWN, NOTHING, Plan, PlanError, make_plan, registers_of
from batchprobe.arch import ADAPTERS, Arch, adapter
from batchprobe.functions.member_path import RESULT, Access, PathError
from batchprobe.functions.signatures import Parameter, Signature, Signatures
from batchprobe.functions.value_types import ValueKind, ValueType

ARCHES = [adapter(name) for name in ADAPTERS if name != "ia64"]
X86 = adapter("x86_64")
BY_NAME = pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
GARBAGE = 0xA5C3_96E1_7B2D_F04B

S64 = ValueType("long", ValueKind.INTEGER, 8, is_signed=True)
U64 = ValueType("unsigned long", ValueKind.INTEGER, 8)
S32 = ValueType("int", ValueKind.INTEGER, 4, is_signed=True)
U32 = ValueType("unsigned int", ValueKind.INTEGER, 4)
U8 = ValueType("u8", ValueKind.INTEGER, 1)
BOOL = ValueType("bool", ValueKind.BOOLEAN, 1)
BE16 = ValueType("__be16", ValueKind.INTEGER, 2, is_network_order=True)
BE32 = ValueType("__be32", ValueKind.INTEGER, 4, is_network_order=True)
BE64 = ValueType("__be64", ValueKind.INTEGER, 8, is_network_order=True)
POINTER = ValueType("struct sock *", ValueKind.POINTER, 8)
STRING = ValueType("const char *", ValueKind.STRING, 8)
STRUCT = ValueType("struct path", ValueKind.OTHER, 16)
ENUM = ValueType(
    "enum state", ValueKind.ENUM, 4, is_signed=True, enumerators={-1: "GONE", 0: "IDLE", 7: "BUSY"}
)


def signature(
    *types: ValueType, names: Sequence[str] = "abcdefghijklmnop", result: ValueType | None = S64
) -> Signature:
    """A function that takes a, b, c and so on."""
    parameters = zip(names, types, strict=False)
    return Signature(
        tuple(Parameter(name, type_, 0) for name, type_ in parameters), result, False, 0, None
    )


def plan(
    of: Signature | None,
    where: str = "",
    *,
    arch: Arch = X86,
    at_entry: bool = True,
    at_return: bool = False,
    paths: Sequence[str] = (),
    reached: Mapping[str, Access] | None = None,
) -> Plan:
    """A plan; `reached` is where the values of paths are."""

    def access(_of: Signature, path: str) -> Access:
        if reached is None or path not in reached:
            raise PathError(f"no argument named {path}")
        return reached[path]

    return make_plan(
        arch,
        of,
        access,
        at_entry=at_entry,
        at_return=at_return,
        paths=paths,
        condition=parse(where) if where else None,
    )


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises((PlanError, PathError)) as error:
        plan(*arguments, **options)  # type: ignore[arg-type]
    return str(error.value)


def read(run: Run, made: Plan) -> list[object]:
    """What a reader makes of the values of a hit without texts, on a machine of this byte order."""
    values = run.values[: len(made.shown)]
    event = VALUES.structs["event"].members
    record = bytes(event["value"].offset) + struct.pack(f"={len(values)}Q", *values)
    found = Decoder(made, is_call=False).fields(record, 0, 0)["args"]
    assert isinstance(found, dict)
    return list(found.values())


def shown(made: Plan) -> list[str]:
    return [one.name for one in made.shown]


def in_register(raw: int, size: int, arch: Arch) -> int:
    """A value as a caller passes it, who may leave anything above it."""
    return (GARBAGE << 8 * size | raw) % (1 << arch.bits)


# -- what is read ----------------------------------------------------------------------------------


@BY_NAME
@pytest.mark.parametrize("is_compared", [False, True])
def test_arguments_are_converted(arch: Arch, is_compared: bool) -> None:
    network = int.from_bytes(b"\x01\xbb", arch.byteorder)
    values = [
        (S32, 0xFFFF_FFE4, -28),
        (U32, 0xFFFF_FFE4, 0xFFFF_FFE4),
        (BOOL, 1, 1),
        (BE16, network, 443),
        (ENUM, 0xFFFF_FFFF, -1),
        (U8, 0xFE, 0xFE),
    ][: len(arch.registers.arguments)]
    where = " && ".join(f"{name} != 77" for name in "abcdef"[: len(values)]) * is_compared
    made = plan(signature(*(type_ for type_, _, _ in values)), where, arch=arch)
    run = Run(made.packed, arch, [in_register(raw, t.size, arch) for t, raw, _ in values])
    assert shown(made) == list("abcdef")[: len(values)]
    assert read(run, made) == [converter(type_)(expected) for type_, _, expected in values]
    if is_compared:
        for (type_, _, expected), value in zip(values, run.values, strict=False):
            assert (signed(value) if type_.is_signed else value) == expected
    assert not run.failed


@BY_NAME
def test_whole_registers(arch: Arch) -> None:
    word = ValueType("unsigned long", ValueKind.INTEGER, arch.bits // 8)
    count = len(arch.registers.arguments)
    registers = [(GARBAGE * (n + 1)) % (1 << arch.bits) for n in range(count)]
    made = plan(signature(*[word] * count), arch=arch)
    assert Run(made.packed, arch, registers).values[:count] == registers


@pytest.mark.parametrize(
    ("name", "size", "has_arguments"),
    [
        ("x86_64", 16, True),
        ("x86_64", 24, False),
        ("arm64", 224, True),
        ("s390x", 8, False),
        ("i386", 8, True),
        ("arm", 8, False),
    ],
)
def test_a_large_result_moves_the_arguments(name: str, size: int, has_arguments: bool) -> None:
    result = ValueType("struct path", ValueKind.OTHER, size)
    assert registers_of(signature(U8, U8, result=result), adapter(name)) == [0, 1] * has_arguments
    assert registers_of(signature(U8, U8, result=POINTER), adapter(name)) == [0, 1]


@BY_NAME
def test_variadic_functions(arch: Arch) -> None:
    of = signature(U32, U32)._replace(is_variadic=True)
    assert registers_of(of, arch) == ([] if arch.name == "i386" else [0, 1])


@BY_NAME
def test_without_types_there_are_registers(arch: Arch) -> None:
    made = plan(None, arch=arch)
    count = len(arch.registers.arguments)
    assert shown(made) == [f"arg{number}" for number in range(count)]
    assert all(one.type is None for one in made.shown)
    registers = [(GARBAGE * (n + 3)) % (1 << arch.bits) for n in range(count)]
    assert Run(made.packed, arch, registers).values[:count] == registers
    assert count <= VALUES.constants["REGISTERS"]


@BY_NAME
def test_arguments_up_to_one_in_no_register_of_its_own(arch: Arch) -> None:
    count = len(arch.registers.arguments)
    assert registers_of(signature(*[U32] * 12), arch) == list(range(count))
    assert registers_of(signature(U32, STRUCT, U32), arch) == [0]
    assert registers_of(signature(U32, U64, U32), arch) == ([0] if arch.bits == 32 else [0, 1, 2])
    assert registers_of(signature(), arch) == []


@BY_NAME
@pytest.mark.parametrize("value", [0x0102_0304_0506_0708, (1 << 64) - 2])
@pytest.mark.parametrize("type_", [S64, U64, S32, U32, U8, BE16, BE32, BE64], ids=lambda t: t.name)
def test_members_behind_pointers(arch: Arch, type_: ValueType, value: int) -> None:
    """a -> (at 8) -> (at 16) -> the value at -4."""
    word = arch.bits // 8
    order = "big" if type_.is_network_order else arch.byteorder
    raw = (value % (1 << 8 * type_.size)).to_bytes(type_.size, order)
    memory = Memory(
        {
            0x7008: 0x8000.to_bytes(word, arch.byteorder),
            0x8010: 0x9004.to_bytes(word, arch.byteorder),
            0x9000: raw,
        }
    )
    path = Access(0, (8, 16, -4), type_, 0, 8 * type_.size)
    pointer = POINTER._replace(size=word)
    made = plan(signature(pointer), arch=arch, paths=["a.b.c"], reached={"a.b.c": path})
    run = Run(made.packed, arch, [0x7000], memory)
    found = signed(run.values[1]) if type_.is_signed else run.values[1]
    assert found == int.from_bytes(raw, order, signed=type_.is_signed)
    assert not run.failed
    for lost in memory.regions:
        broken = Memory({at: each for at, each in memory.regions.items() if at != lost})
        assert Run(made.packed, arch, [0x7000], broken).failed == {1}


def test_a_failed_read_does_not_spoil_the_next_value() -> None:
    reached = {name: Access(n, (0,), U64, 0, 64) for n, name in enumerate(("a.x", "b.x"))}
    made = plan(signature(POINTER, POINTER), paths=["a.x", "b.x"], reached=reached)
    run = Run(made.packed, X86, [0x10, 0x20], Memory({0x20: b"\7" + bytes(7)}))
    assert run.failed == {2}
    assert run.values[3] == 7


@pytest.mark.parametrize(
    ("shift", "bits", "is_signed", "expected"),
    [(0, 1, False, 1), (5, 2, False, 2), (5, 2, True, -2), (0, 8, True, -63), (31, 1, True, -1)],
)
def test_bit_fields(shift: int, bits: int, is_signed: bool, expected: int) -> None:
    type_ = U32._replace(is_signed=is_signed)
    reached = {"a.f": Access(0, (0,), type_, shift, bits)}
    made = plan(signature(POINTER), paths=["a.f"], reached=reached)
    memory = Memory({0x10: 0b1000_0000_0000_0000_0000_0000_1100_0001.to_bytes(4, "little")})
    value = Run(made.packed, X86, [0x10], memory).values[1]
    assert (signed(value) if is_signed else value) == expected


def test_texts() -> None:
    inside = Access(1, (8,), STRING, 0, 64, is_embedded=True)
    behind = Access(1, (0,), STRING, 0, 64)
    reached = {"b.comm": inside, "b.name": behind}
    made = plan(signature(STRING, POINTER), paths=["b.comm", "b.name"], reached=reached)
    assert [one.name for one in made.shown if one.is_text] == ["a", "b.comm", "b.name"]
    memory = Memory({0x10: b"one\0", 0x20: (0x40).to_bytes(8, "little") + b"two\0", 0x40: b"\0"})
    run = Run(made.packed, X86, [0x10, 0x20], memory)
    assert run.texts == [b"one\0", b"two\0", b"\0"]
    # The address, if the text cannot be read.
    assert run.values[:4] == [0x10, 0x20, 0x28, 0x40]
    assert Run(made.packed, X86, [0, 0x20]).texts == [b"", b"", b""]


def test_more_texts_than_fit_are_addresses() -> None:
    made = plan(signature(*[STRING] * 6))
    assert [one.is_text for one in made.shown] == [True] * 4 + [False] * 2
    registers = [0x10 * n for n in range(6)]
    run = Run(made.packed, X86, registers)
    assert len(run.texts) == 4
    assert run.values[:6] == registers


@BY_NAME
def test_an_argument_in_network_order_by_its_longer_name(arch: Arch) -> None:
    network = int.from_bytes(b"\x01\xbb", arch.byteorder)
    reached = {"a": Access(0, (), BE16, 0, 16)}
    made = plan(signature(BE16), "arg.a == 443", arch=arch, paths=["arg.a"], reached=reached)
    run = Run(made.packed, arch, [in_register(network, 2, arch)])
    assert read(run, made) == [443, 443]
    assert run.is_wanted_at_entry


@NEEDS_LITTLE_ENDIAN
def test_text_in_an_array_of_any_size() -> None:
    """name is a char[16] in struct net_device of the recorded types."""
    signatures = Signatures(None, read_recorded)
    made = make_plan(
        X86,
        signatures.of("ip_queue_xmit"),
        signatures.access,
        at_entry=True,
        at_return=False,
        paths=["skb.dev.name"],
    )
    *_, name = made.shown
    assert name.is_text
    assert name.type is not None
    assert name.type.size == 16
    unreadable = Run(made.packed, X86, [0, 0, 0])
    assert unreadable.texts == [b""]
    assert read(unreadable, made)[-1] is not None


def test_a_path_is_shown_once() -> None:
    reached = {"a.x": Access(0, (0,), U64, 0, 64)}
    asked = ["a.x", "a", "a.x"]
    made = plan(signature(POINTER), "a.x > 1 && a", paths=asked, reached=reached)
    assert shown(made) == ["a", "a.x"]
    assert fields("plan", made.packed, 0)["steps"] == 2
    assert fields("plan", plan(signature(POINTER, S32)).packed, 0)["steps"] == 0


def test_what_only_the_condition_needs_is_read_behind() -> None:
    reached = {"a.x": Access(0, (0,), U64, 0, 64)}
    made = plan(signature(POINTER), "a.x > 1", reached=reached)
    assert shown(made) == ["a"]
    head = fields("plan", made.packed, 0)
    assert (head["steps"], head["values"]) == (1, 1)
    assert elements(made.packed, "step")[0]["to"] == 1


@pytest.mark.parametrize("name", ["x86_64", "arm64", "riscv64"])
def test_arguments_of_system_calls(name: str) -> None:
    """The only register points to those of user space, where each argument takes 8 bytes."""
    arch = adapter(name)
    places = arch.syscall_arguments[:3]
    types = (S32, STRING, U32)
    of = signature(*types, names=["dfd", "filename", "flags"])._replace(
        accesses=tuple(
            Access(0, (at,), type_, 0, 8 * type_.size)
            for at, type_ in zip(places, types, strict=True)
        )
    )
    made = plan(of, "dfd == -100 && flags & 4", arch=arch)
    assert [(one.name, one.is_text) for one in made.shown] == [
        ("dfd", False),
        ("filename", True),
        ("flags", False),
    ]
    values = (-100 % WORD, 0x4000, GARBAGE << 32 | 6)
    regions = {
        0x1000 + at: (value % WORD).to_bytes(8, arch.byteorder)
        for at, value in zip(places, values, strict=True)
    }
    run = Run(made.packed, arch, [0x1000], Memory({**regions, 0x4000: b"/etc/passwd\0"}))
    assert run.texts == [b"/etc/passwd\0"]
    assert run.user_texts == 1
    assert [signed(run.values[0]), *run.values[1:3]] == [-100, 0x4000, 6]
    assert run.is_wanted_at_entry
    # The argument is where the pointer leads, by its longer name too.
    reached = {"flags": Access(2, (), U32, 0, 32)}
    made = plan(of, "arg.flags == 6", arch=arch, reached=reached)
    assert Run(made.packed, arch, [0x1000], Memory(regions)).is_wanted_at_entry


@NEEDS_LITTLE_ENDIAN
def test_recorded_types() -> None:
    """vfs_read(file, buf, count, pos), with offsets of Debian's 6.1 for x86_64."""
    signatures = Signatures(None, read_recorded)
    name = "file.f_path.dentry.d_name.name"
    made = make_plan(
        X86,
        signatures.of("vfs_read"),
        signatures.access,
        at_entry=True,
        at_return=True,
        paths=[name, "file.f_inode.i_ino"],
        condition=parse("file->f_inode->i_ino == 77 && count > 4k && result < 0"),
    )
    assert shown(made) == ["file", "buf", "count", "pos", name, "file.f_inode.i_ino"]
    quad = {"length": 8, "byteorder": "little"}
    memory = Memory(
        {
            0x1018: 0x2000.to_bytes(**quad),  # type: ignore[arg-type]
            0x2028: 0x3000.to_bytes(**quad),  # type: ignore[arg-type]
            0x3000: b"passwd\0",
            0x1020: 0x4000.to_bytes(**quad),  # type: ignore[arg-type]
            0x4040: (77).to_bytes(**quad),  # type: ignore[arg-type]
        }
    )
    run = Run(made.packed, X86, [0x1000, 0, 8192, 0], memory)
    assert run.texts == [b"", b"passwd\0"]
    assert run.values[5] == 77
    assert run.is_wanted_at_entry
    run.end(-5 % WORD)
    assert run.is_wanted_at_return
    run.end(5)
    assert not run.is_wanted_at_return
    assert not Run(made.packed, X86, [0x1000, 0, 4096, 0], memory).is_wanted_at_entry
    assert not Run(made.packed, X86, [0x1001, 0, 8192, 0], memory).is_wanted_at_entry


# -- the result ------------------------------------------------------------------------------------


@BY_NAME
@pytest.mark.parametrize(
    ("type_", "raw", "expected"),
    [(S32, 0xFFFF_FFE4, -28), (U32, 0xFFFF_FFE4, 0xFFFF_FFE4), (BOOL, 1, 1), (U8, 0x80, 0x80)],
)
def test_results_are_converted(arch: Arch, type_: ValueType, raw: int, expected: int) -> None:
    made = plan(signature(result=type_), arch=arch, at_return=True)
    assert made.has_result
    assert made.result == type_
    run = Run(made.packed, arch, [])
    run.end(in_register(raw, type_.size, arch), duration=5)
    assert run.values[VALUES.constants["RESULT"]] == expected % WORD


def test_where_a_result_is_read() -> None:
    def has_result(*, at_entry: bool, at_return: bool) -> int:
        made = plan(signature(U32), at_entry=at_entry, at_return=at_return)
        return fields("plan", made.packed, 0)["has_result"]

    assert has_result(at_entry=False, at_return=True)
    # At the return of a call it is read in any case.
    assert not has_result(at_entry=True, at_return=True)
    assert not has_result(at_entry=True, at_return=False)


def test_without_a_result() -> None:
    made = plan(signature(result=None), at_entry=False, at_return=True)
    assert (made.result, made.has_result, made.shown) == (None, False, ())
    assert plan(None, at_entry=False, at_return=True).has_result
    # One of two registers is no number of that type.
    for arch, type_ in ((X86, STRUCT), (adapter("i386"), S64)):
        made = plan(signature(result=type_), arch=arch, at_entry=False, at_return=True)
        assert (made.result, made.has_result) == (None, True)
    assert not plan(signature()).has_result


# -- conditions ------------------------------------------------------------------------------------


def test_a_condition_is_split() -> None:
    made = plan(signature(U32, S32), "result < 0 && a > 4 && duration > 1us", at_return=True)
    for size, result, duration, entry, end in [
        (5, -1, 1001, True, True),
        (4, -1, 1001, False, True),
        (5, 0, 1001, True, False),
        (5, -1, 1000, True, False),
    ]:
        run = Run(made.packed, X86, [size, 0])
        run.end(result % WORD, duration)
        assert (run.is_wanted_at_entry, run.is_wanted_at_return) == (entry, end)


def test_what_is_decided_at_one_end_only() -> None:
    def begins(where: str, *, at_entry: bool = True, at_return: bool = False) -> tuple[int, int]:
        made = plan(signature(U32), where, at_entry=at_entry, at_return=at_return)
        head = fields("plan", made.packed, 0)
        return head["at_entry"], head["at_return"]

    assert begins("", at_return=True) == (ACCEPT, ACCEPT)
    assert begins("a > 4", at_return=True) == (0, ACCEPT)
    assert begins("result > 4", at_return=True) == (ACCEPT, 0)
    assert begins("a > 4 && a < 9 && result", at_return=True) == (0, 2)
    assert begins("a > 4 || result", at_return=True) == (ACCEPT, 0)
    assert begins("a > 4") == (0, ACCEPT)
    # The program of a return probe takes it for the hit's.
    assert begins("result", at_entry=False, at_return=True) == (0, ACCEPT)


def test_an_argument_that_is_called_result() -> None:
    made = plan(
        signature(U32, names=["result"], result=S32),
        "arg.result == 7 && result == 0",
        at_return=True,
        reached={"result": Access(0, (), U32, 0, 32)},
    )
    run = Run(made.packed, X86, [7])
    run.end(0)
    assert run.is_wanted_at_entry
    assert run.is_wanted_at_return
    assert not Run(made.packed, X86, [0]).is_wanted_at_entry
    # A member of an argument that is called arg.
    made = plan(
        signature(POINTER, names=["arg"]),
        "arg.result",
        reached={"arg.result": Access(0, (0,), U8, 0, 8)},
    )
    assert Run(made.packed, X86, [0x10], Memory({0x10: b"\1"})).is_wanted_at_entry


def test_nothing_is_wanted() -> None:
    run = Run(NOTHING, X86, [])
    assert run.head["steps"] == run.head["values"] == 0
    # Its calls are followed from the entry to the return.
    assert run.is_wanted_at_entry
    assert run.head["at_return"] == REJECT


@pytest.mark.parametrize(
    ("where", "type_", "wanted", "unwanted"),
    [
        ("a == BUSY", ENUM, [7], [0, -1]),
        ("a == GONE", ENUM, [-1], [0, 7]),
        ("a < IDLE", ENUM, [-1, -5], [0, 7]),
        ("a == -1", U32, [0xFFFF_FFFF], [0, 0xFF]),
        ("a != -1", U32, [0, 0xFF], [0xFFFF_FFFF]),
        ("a == 0xffffffff", S32, [-1], [0, 1]),
        ("a == 0x80000000", S32, [-(1 << 31)], [0, 1 << 30]),
        ("a != 0x80000000", S32, [0, 1 << 30], [-(1 << 31)]),
        ("(a & 0x80000000) == 0x80000000", S32, [-(1 << 31), -1], [0, 1]),
        ("(a & 0xffffffff) == 0xffffffff", S32, [-1], [0, 1]),
        ("a < 256", U8, [0, 255], []),
        ("a >= 256", U8, [], [0, 255]),
        ("a == 256", U8, [], [0, 255]),
        ("a <= 5000000000", U32, [0, 0xFFFF_FFFF], []),
        ("a <= 5000000000", S32, [-1, 0x7FFF_FFFF], []),
        ("a > -5000000000", S32, [-1, 0x7FFF_FFFF], []),
        ("a == -ENOSPC", POINTER, [WORD - 28], [28, 0]),
        ("a < 0x8000000000000001", U64, [1 << 63, 0], [WORD - 1, (1 << 63) + 1]),
        ("a == 0xffffffffffffffff", S64, [-1], [0, 1]),
        ("!a", POINTER, [0], [1, 1 << 63]),
        ("a == 443", BE16, [0xBB01], [443]),
    ],
)
def test_constants(
    where: str, type_: ValueType, wanted: Sequence[int], unwanted: Sequence[int]
) -> None:
    made = plan(signature(type_), where)
    for values, expected in ((wanted, True), (unwanted, False)):
        for value in values:
            register = in_register(value % (1 << 8 * type_.size), type_.size, X86)
            assert Run(made.packed, X86, [register]).is_wanted_at_entry is expected


# -- what cannot be asked for ----------------------------------------------------------------------


TWICE = {"a.x": Access(0, (0,), U64, 0, 64)}
MANY = {f"a.x{n}": Access(0, (8 * n,), U64, 0, 64) for n in range(16)}
DEEP = {f"a.x{n}": Access(0, (0, 0, 0, 8 * n), U64, 0, 64) for n in range(12)}
NAMES = {f"a.x{n}": Access(0, (8 * n,), STRING, 0, 64) for n in range(8)}


@pytest.mark.parametrize(
    ("of", "options", "reason"),
    [
        (None, {"paths": ["a"]}, "its types are unknown"),
        (None, {"where": "a > 1"}, "its types are unknown"),
        (
            signature(U32),
            {"where": "a", "at_entry": False, "at_return": True},
            "the arguments are known at the entry only",
        ),
        (signature(U32), {"where": "b > 1"}, "no argument named b"),
        (
            signature(STRUCT, POINTER),
            {"paths": ["b.x"], "reached": {"b.x": Access(1, (0,), U64, 0, 64)}},
            "b.x is not passed in a register of its own",
        ),
        (
            signature(POINTER, result=POINTER),
            {"paths": ["return.x"], "reached": {"return.x": Access(RESULT, (0,), U64, 0, 64)}},
            "return.x is not passed in a register of its own",
        ),
        (
            signature(POINTER),
            {"paths": list(MANY), "reached": MANY},
            f"an event has at most {MAX_SHOWN} values",
        ),
        (
            signature(POINTER),
            {"paths": list(DEEP)[:8], "reached": DEEP},
            "its values take over 24 steps to read",
        ),
        (
            signature(POINTER),
            {"paths": list(NAMES)[:5], "reached": NAMES},
            "an event has at most 4 texts",
        ),
        (
            signature(POINTER),
            {
                "paths": list(MANY)[:11],
                "where": "a.x11 && a.x12 && a.x13",
                "reached": MANY,
            },
            "at most 14 values can be read",
        ),
        (
            signature(POINTER),
            {
                "where": "a.comm",
                "reached": {"a.comm": Access(0, (8,), STRING, 0, 64, is_embedded=True)},
            },
            "text cannot be compared in the kernel",
        ),
        (
            signature(POINTER),
            {"paths": ["a.path"], "reached": {"a.path": Access(0, (8,), STRUCT, 0, 128)}},
            "a struct path is no single number: name a member of it",
        ),
        (
            signature(POINTER),
            {"paths": ["a.x"], "reached": {"a.x": Access(0, (1 << 40,), U64, 0, 64)}},
            "what it names is over 2 GiB from where the pointer points",
        ),
        (signature(result=None), {"where": "result", "at_return": True}, "it returns nothing"),
        (signature(), {"where": "result"}, "its result is not known yet"),
        (signature(), {"where": "duration > 1"}, "only calls have a duration"),
        (
            signature(),
            {"where": "duration > 1", "at_entry": False, "at_return": True},
            "only calls have a duration",
        ),
        (
            signature(result=POINTER),
            {"where": "result.len", "at_return": True},
            "result.len is not read: only the result itself can be compared",
        ),
        (
            signature(result=STRUCT),
            {"where": "result == 1", "at_return": True},
            "its result, a struct path, is no single number",
        ),
        (signature(U32), {"where": "a > -1"}, "a is unsigned: it is never less than 0"),
        (signature(POINTER), {"where": "a < -5"}, "a is unsigned: it is never less than 0"),
        (signature(POINTER), {"where": "a < 0"}, "a is unsigned: it is never less than 0"),
        (
            signature(S64),
            {"where": "a < 0x8000000000000000"},
            "a is signed: it is always less than 9223372036854775808",
        ),
        (signature(U32), {"where": "a == BUSY"}, "BUSY is no number, and a is no enum"),
        (signature(ENUM), {"where": "a == AWAY"}, "enum state has no AWAY"),
    ],
)
def test_refusals(of: Signature | None, options: Mapping[str, object], reason: str) -> None:
    assert refusal(of, **options) == reason


# -- random conditions on random values ------------------------------------------------------------


class Operand(NamedTuple):
    """A value of a function: its path, where it is, and what it is."""

    path: str
    access: Access
    value: int


OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
BITS = (0, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 63, WORD)
EDGES = [bit + near for bit in BITS for near in (-2, -1, 0, 1)]
CONSTANTS = st.one_of(
    st.sampled_from(
        [each for edge in EDGES for each in (edge, -edge) if -(1 << 63) <= each < WORD]
    ),
    st.integers(-40, 40),
    st.integers(-(1 << 63), WORD - 1),
)
MASKS = st.one_of(
    st.none(), st.sampled_from([1, 6, 0xFF, 0xFFFF_FFFF, 1 << 63, -4]), st.integers(1, WORD - 2)
)


class Leaf(NamedTuple):
    """A comparison."""

    operand: Operand
    mask: int | None
    operator: str
    constant: int

    @property
    def text(self) -> str:
        path = self.operand.path
        left = path if self.mask is None else f"({path} & {self.mask})"
        return f"{left} {self.operator} {self.constant}"

    @property
    def is_refused(self) -> bool:
        """Whether the type alone decides it."""
        if self.operator in ("==", "!="):
            return False
        is_signed = self.operand.access.type.is_signed
        if is_signed:
            return self.constant >= 1 << 63
        return self.constant < 0 or (self.constant == 0 and self.operator in ("<", ">="))

    @property
    def holds(self) -> bool:
        type_, value = self.operand.access.type, self.operand.value
        width = 8 * type_.size
        if self.mask is not None:
            value = value & self.mask & ALL_BITS
            if type_.is_signed:
                value, width = signed(value), 64
        if self.operator not in ("==", "!="):
            return OPERATORS[self.operator](value, self.constant)
        # As C converts the constant to the type, if it fits there with or without a sign.
        is_equal = (
            -(1 << width - 1) <= self.constant < 1 << width
            and (value - self.constant) % (1 << width) == 0
        )
        return is_equal is (self.operator == "==")


class Tree(NamedTuple):
    """A condition of several."""

    word: str
    parts: tuple[Leaf | Tree, ...]

    @property
    def text(self) -> str:
        if self.word == "not":
            return f"!({self.parts[0].text})"
        return f" {self.word} ".join(f"({part.text})" for part in self.parts)

    @property
    def is_refused(self) -> bool:
        return any(part.is_refused for part in self.parts)

    @property
    def holds(self) -> bool:
        if self.word == "not":
            return not self.parts[0].holds
        return (all if self.word == "&&" else any)(part.holds for part in self.parts)


@st.composite
def types(draw: st.DrawFn, word: int) -> tuple[ValueType, int, int]:
    """A type, the shift and the width of a value."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    size = min(size, word)
    kind = draw(st.sampled_from(["signed", "unsigned", "network", "signed field", "field"]))
    type_ = ValueType(
        *(f"{kind} {size}", ValueKind.INTEGER, size),
        is_signed=kind.startswith("signed"),
        is_network_order=kind == "network",
    )
    if not kind.endswith("field"):
        return type_, 0, 8 * size
    bits = draw(st.integers(1, 8 * size))
    return type_, draw(st.integers(0, 8 * size - bits)), bits


@st.composite
def operands(draw: st.DrawFn, arch: Arch, parameter: int) -> tuple[Operand, int, dict[int, bytes]]:
    """An operand, the register of its argument, and the memory behind that."""
    word = arch.bits // 8
    type_, shift, bits = draw(types(word))
    low = -(1 << bits - 1) if type_.is_signed else 0
    high = low + (1 << bits) - 1
    near = [edge for edge in (*EDGES, low, high) if low <= edge <= high]
    value = draw(st.one_of(st.sampled_from(near), st.integers(low, high)))
    width = 8 * type_.size
    raw = draw(st.integers(0, (1 << width) - 1)) & ~((1 << bits) - 1 << shift)
    raw |= value % (1 << bits) << shift
    if type_.is_network_order:
        raw = int.from_bytes(raw.to_bytes(type_.size, "big"), arch.byteorder)
    name = "abcdef"[parameter]
    offsets = tuple(draw(st.lists(st.integers(-64, 64).map(lambda n: 8 * n), max_size=3)))
    if not offsets and bits == width:
        access = Access(parameter, (), type_, 0, bits)
        return Operand(name, access, value), in_register(raw, type_.size, arch), {}
    offsets = offsets or (0,)
    at = register = 0x10_0000 * (parameter + 1)
    memory = {}
    for number, offset in enumerate(offsets[:-1], 1):
        following = at + 0x1_0000 * number
        memory[at + offset] = following.to_bytes(word, arch.byteorder)
        at = following
    memory[at + offsets[-1]] = raw.to_bytes(type_.size, arch.byteorder)
    return (
        Operand(f"{name}.x", Access(parameter, offsets, type_, shift, bits), value),
        register,
        memory,
    )


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(ARCHES), st.booleans())
def test_random_conditions(data: st.DataObject, arch: Arch, is_call: bool) -> None:
    count = data.draw(st.integers(1, min(3, len(arch.registers.arguments))))
    drawn = [data.draw(operands(arch, number)) for number in range(count)]
    found = [operand for operand, _, _ in drawn]
    result_type, shift, bits = data.draw(types(arch.bits // 8))
    result_type = result_type._replace(is_network_order=False)
    del shift, bits
    raw = data.draw(st.integers(0, (1 << 8 * result_type.size) - 1))
    result = raw
    if result_type.is_signed and raw >> 8 * result_type.size - 1:
        result -= 1 << 8 * result_type.size
    if is_call:
        found.append(Operand("result", Access(RESULT, (), result_type, 0, 0), result))
    leaves = st.builds(
        Leaf, st.sampled_from(found), MASKS, st.sampled_from([*OPERATORS]), CONSTANTS
    )
    tree = data.draw(
        st.recursive(
            leaves,
            lambda inner: st.one_of(
                inner.map(lambda part: Tree("not", (part,))),
                st.builds(
                    Tree,
                    st.sampled_from(["&&", "||"]),
                    st.lists(inner, min_size=2, max_size=3).map(tuple),
                ),
            ),
            max_leaves=8,
        )
    )
    pointer = POINTER._replace(size=arch.bits // 8)
    of = signature(
        *(one.access.type if not one.access.steps else pointer for one, _, _ in drawn),
        result=result_type,
    )
    try:
        made = plan(
            of,
            tree.text,
            arch=arch,
            at_return=is_call,
            reached={one.path: one.access for one in found},
        )
    except PlanError:
        assert tree.is_refused
        return
    except ConditionError as error:
        assert "at most 12 comparisons" in str(error)
        return
    assert not tree.is_refused
    memory = Memory({at: each for _, _, part in drawn for at, each in part.items()})
    run = Run(made.packed, arch, [register for _, register, _ in drawn], memory)
    run.end(in_register(raw, result_type.size, arch))
    assert not run.failed
    assert (run.is_wanted_at_entry and run.is_wanted_at_return) is tree.holds


def test_what_cannot_be_read_is_not_wanted() -> None:
    reached = {"b.x": Access(1, (0,), U64, 0, 64)}
    made = plan(signature(U64, POINTER), "a == 1 || b.x != 5 || a == 2", reached=reached)
    assert Run(made.packed, X86, [1, 0]).is_wanted_at_entry
    # Even if the rest holds.
    assert not Run(made.packed, X86, [2, 0]).is_wanted_at_entry
    memory = Memory({0x10: b"\5" + bytes(7)})
    assert Run(made.packed, X86, [2, 0x10], memory).is_wanted_at_entry
    assert not Run(made.packed, X86, [3, 0x10], memory).is_wanted_at_entry
