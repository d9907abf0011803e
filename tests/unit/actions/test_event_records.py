# SPDX-License-Identifier: Apache-2.0
"""Records of a ring buffer, laid out as bpf/values.h says, become what JSON can hold."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from c_layout import VALUES
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.actions.event_records import Decoder, Records, Text, converter, error_name
from batchprobe.actions.plan import Plan, Shown
from batchprobe.functions.value_types import ValueKind, ValueType

WORD = 1 << 64
INT = ValueType("int", ValueKind.INTEGER, 4, is_signed=True)
LONG = ValueType("long", ValueKind.INTEGER, 8, is_signed=True)
UNSIGNED = ValueType("unsigned long", ValueKind.INTEGER, 8)
BOOL = ValueType("bool", ValueKind.BOOLEAN, 1)
CHAR = ValueType("char", ValueKind.CHARACTER, 1, is_signed=True)
POINTER = ValueType("struct sock *", ValueKind.POINTER, 8)
POINTER_32 = POINTER._replace(size=4)
STRING = ValueType("const char *", ValueKind.STRING, 8)
STATE = ValueType(
    "enum state", ValueKind.ENUM, 4, is_signed=True, enumerators={-1: "GONE", 0: "IDLE", 7: "BUSY"}
)
FLAGS = ValueType(
    *("enum flags", ValueKind.ENUM, 4),
    enumerators={0: "NONE", 1: "SYNC", 2: "FORCE", 4: "LAZY"},
    is_flags=True,
)


def record(
    values: Sequence[int] = (), *, texts: Sequence[bytes] = (), comm: bytes = b"cat", **head: int
) -> bytes:
    """A struct event as a program writes it: no longer than what is in it."""
    members = VALUES.structs["event"].members
    raw = bytearray(VALUES.size("event"))

    def put(name: str, value: int, index: int = 0) -> None:
        one = members[name]
        at = one.offset + index * one.size
        raw[at : at + one.size] = (value % (1 << 8 * one.size)).to_bytes(one.size, sys.byteorder)

    for name, value in head.items():
        put(name, value)
    for index, value in enumerate(values):
        put("value", value, index)
    raw[members["comm"].offset : members["comm"].offset + len(comm)] = comm
    text = b"".join(texts)
    raw[members["text"].offset : members["text"].offset + len(text)] = text
    for index, each in enumerate(texts):
        put("text_size", len(each), index)
    put("texts", len(texts))
    put("text_used", len(text))
    end = members["text"].offset + len(text) if texts else members["value"].offset + 8 * len(values)
    return bytes(raw[:end])


def decoded(
    raw: bytes,
    *types: ValueType | None,
    result: ValueType | None = None,
    has_result: bool = False,
    is_call: bool = False,
    texts: Sequence[int] = (),
) -> dict[str, Any]:
    """What comes of a record of a function that takes a, b and so on; `texts` of them are read."""
    shown = tuple(
        Shown(name, type_, index in texts)
        for index, (name, type_) in enumerate(zip("abcdefghijkl", types, strict=False))
    )
    decoder = Decoder(Plan(b"", shown, result, has_result), is_call=is_call)
    # It begins anywhere, and ends where the record does.
    found = decoder.fields(bytes(24) + raw, 24, 0)
    return dict(json.loads(json.dumps(found)))


def arguments(raw: bytes, *types: ValueType | None, texts: Sequence[int] = ()) -> list[object]:
    return list(decoded(raw, *types, texts=texts)["args"].values())


def outcome(result: int, type_: ValueType | None) -> Mapping[str, object]:
    found = decoded(record(result=result), result=type_, has_result=True)
    return {name: value for name, value in found.items() if name in ("result", "error")}


def test_head() -> None:
    raw = record(time=1_500_000_123, slot=3, pid=7, tid=8, cpu=300, comm=b"a" * 15 + b"\0")
    decoder = Decoder(Plan(b"", (), None, False), is_call=False)
    assert decoder.fields(raw, 0, 10**18) == {
        "time": 1_000_000_001.5,
        "time_ns": 1_500_000_123,
        "cpu": 300,
        "pid": 7,
        "tid": 8,
        "comm": "a" * 15,
    }


@pytest.mark.parametrize(
    ("comm", "text"),
    [
        (b"", ""),
        (b"kworker/0:1\0\0", "kworker/0:1"),
        (b"a\0b", "a"),
        (b"f\xc3\xbcr", "für"),
        (b"\xff\xc3", "\\xff\\xc3"),
        (b"x" * 16, "x" * 16),
    ],
)
def test_names_of_tasks(comm: bytes, text: str) -> None:
    assert decoded(record(comm=comm))["comm"] == text


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (INT, 5, 5),
        (INT, -5, -5),
        (LONG, -(1 << 63), -(1 << 63)),
        (UNSIGNED, WORD - 1, WORD - 1),
        (BOOL, 0, False),
        (BOOL, 1, True),
        (CHAR, 97, "a"),
        (CHAR, -1, "\xff"),
        (POINTER, 0, "0x0"),
        (POINTER, 0xFFFF_8880_0000_0000, "0xffff888000000000"),
        (POINTER_32, 0xC000_0000, "0xc0000000"),
        (STRING, 0x10, "0x10"),
        (STATE, -1, "GONE"),
        (STATE, 0, "IDLE"),
        (STATE, 7, "BUSY"),
        (STATE, 6, 6),
        (FLAGS, 0, "NONE"),
        (FLAGS, 2, "FORCE"),
        (FLAGS, 5, "SYNC|LAZY"),
        (FLAGS, 9, "SYNC|0x8"),
        (FLAGS, 8, "0x8"),
        (FLAGS._replace(enumerators={1: "SYNC", 2: "FORCE", 4: "LAZY"}), 0, "0x0"),
        (None, 0xABC, "0xabc"),
        (None, WORD - 1, "0xffffffffffffffff"),
    ],
)
def test_values(type_: ValueType | None, value: int, expected: object) -> None:
    # The one before it and the one behind it are others.
    found = arguments(record([11, value, 12]), UNSIGNED, type_, UNSIGNED)
    assert found == [11, expected, 12]
    assert type(found[1]) is type(expected)
    if not error_name(value):
        assert outcome(value, type_)["result"] == expected


def test_every_kind_can_be_shown() -> None:
    for kind in ValueKind:
        json.dumps(converter(ValueType("some", kind, 8))(1))


def test_without_arguments() -> None:
    assert "args" not in decoded(record())
    assert decoded(record([1]), INT)["args"] == {"a": 1}


def test_unreadable_values() -> None:
    values = list(range(12))
    found = arguments(record(values, failed=0b1000_0000_0101), *[UNSIGNED] * 12)
    assert found == [None, 1, None, *range(3, 11), None]


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (-28, INT, {"result": -28, "error": "ENOSPC"}),
        (-28, LONG, {"result": -28, "error": "ENOSPC"}),
        (-28, POINTER, {"result": "0xffffffffffffffe4", "error": "ENOSPC"}),
        (-28, STRING, {"result": "0xffffffffffffffe4", "error": "ENOSPC"}),
        # As a 32-bit kernel has it.
        (0xFFFF_FFE4, POINTER_32, {"result": "0xffffffe4", "error": "ENOSPC"}),
        (0xFFFF_FFE4, POINTER, {"result": "0xffffffe4"}),
        (-28, UNSIGNED, {"result": WORD - 28}),
        (0xFFFF_FFE4, UNSIGNED._replace(size=4), {"result": 0xFFFF_FFE4}),
        (28, INT, {"result": 28}),
        (0, INT, {"result": 0}),
        (0, POINTER, {"result": "0x0"}),
        (-4095, LONG, {"result": -4095, "error": "E4095"}),
        (-4096, LONG, {"result": -4096}),
        (-4096, POINTER, {"result": "0xfffffffffffff000"}),
        (-(1 << 31), INT, {"result": -(1 << 31)}),
        (1, BOOL, {"result": True}),
        (-1, STATE, {"result": "GONE"}),
        (-5, STATE, {"result": -5}),
        (-1, CHAR, {"result": "\xff"}),
        (7, STATE, {"result": "BUSY"}),
        (-28, None, {"result": "0xffffffffffffffe4"}),
    ],
)
def test_results(value: int, type_: ValueType | None, expected: Mapping[str, object]) -> None:
    assert outcome(value, type_) == expected


def test_what_a_record_has_beside() -> None:
    raw = record(result=5, duration=1234)
    assert "result" not in decoded(raw)
    assert "duration_ns" not in decoded(raw, result=INT, has_result=True)
    found = decoded(raw, result=INT, has_result=True, is_call=True)
    assert (found["result"], found["duration_ns"]) == (5, 1234)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "EPERM"),
        (11, "EAGAIN"),
        (28, "ENOSPC"),
        (512, "ERESTARTSYS"),
        (517, "EPROBE_DEFER"),
        (524, "ENOTSUPP"),
        (1000, "E1000"),
        (4095, "E4095"),
    ],
)
def test_names_of_errors(number: int, name: str) -> None:
    assert error_name(-number) == error_name(WORD - number) == name
    assert error_name(number) == ""


def test_what_is_no_error() -> None:
    for value in (0, 28, -4096, -(1 << 63), 0xFFFF_FFE4):
        assert error_name(value) == ""


# -- texts -----------------------------------------------------------------------------------------


def test_four_texts() -> None:
    texts = [b"one\0", b"\0", b"x" * 63 + b"\0", b"f\xc3\xbcr\xff\0"]
    raw = record([0x10, 0x20, 1, 0x30, 0x40], texts=texts)
    found = arguments(raw, STRING, STRING, INT, STRING, STRING, texts=[0, 1, 3, 4])
    assert found == ["one", "", 1, "x" * 63, "für\\xff"]


def test_a_text_that_could_not_be_read_is_an_address() -> None:
    raw = record([0, 0x20, 0x30, 0x40], texts=[b"", b"two\0", b"", b"four\0"], failed=0b100)
    found = arguments(raw, *[STRING] * 4, texts=range(4))
    # Of the third, the pointer could not be read either.
    assert found == ["0x0", "two", None, "four"]


def test_a_cut_text() -> None:
    """The kernel cuts in the middle of a letter too."""
    raw = record([0x10], texts=[b"y" * 62 + b"\xc3\0"])
    assert arguments(raw, STRING, texts=[0]) == ["y" * 62 + "\\xc3"]


def test_texts_are_told_from_names() -> None:
    shown = (Shown("path", STRING, is_text=True), Shown("state", STATE))
    raw = record([0x10, 7], texts=[b"BUSY\0"])
    found: Any = Decoder(Plan(b"", shown, None, False), is_call=False).fields(raw, 0, 0)
    assert list(map(type, found["args"].values())) == [Text, str]


@given(
    st.lists(
        st.one_of(st.just(b""), st.binary(max_size=63).map(lambda raw: raw + b"\0")), max_size=4
    )
)
def test_random_texts(texts: list[bytes]) -> None:
    raw = record([0x10] * len(texts), texts=texts)
    for found, text in zip(
        arguments(raw, *[STRING] * len(texts), texts=range(4)) if texts else [], texts, strict=True
    ):
        expected = text.split(b"\0")[0].decode(errors="backslashreplace")
        assert found == (expected if text else "0x10")


# -- slots -----------------------------------------------------------------------------------------


def test_each_slot_has_its_decoder() -> None:
    decoders = {
        slot: Decoder(Plan(b"", (Shown(name, INT),), None, False), is_call=False)
        for slot, name in ((1, "size"), (70_000, "count"))
    }
    first, second = record([4], slot=70_000), record([5], slot=1)
    found: Any = Records(first + second, [0, len(first)], decoders, 0)
    assert [(slot, fields["args"]) for slot, fields in found] == [
        (70_000, {"count": 4}),
        (1, {"size": 5}),
    ]
    assert (len(found), len(found[1:]), len(found[2:])) == (2, 1, 0)
    assert found[1:][0] == found[1] == found[-1]


def test_a_record_is_no_longer_than_its_values() -> None:
    """The memory may end behind the last one."""
    raw = record([1, 2])
    assert len(raw) == struct.calcsize("QQQIIIHH8s16s") + 16
    assert arguments(raw, INT, INT) == [1, 2]
    with pytest.raises(struct.error):
        arguments(raw[:-1], INT, INT)
