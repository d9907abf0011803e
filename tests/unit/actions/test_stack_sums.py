# SPDX-License-Identifier: Apache-2.0
"""Stacks of callers as the reader finds them, their sums and differences, and their JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from c_layout import STACKS
from fake_maps import FakeMaps

from batchprobe.actions.stacks import CallStack, CallTimeStacks, Stacks, StackSum, StackSums
from batchprobe.sys import bpf

A, B = CallStack((0x10, 0x20)), CallStack((0x10,))
ENTRY, CALLER, USER = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0010, 0x7F00_0000_1000


def stack_element(key: int, ips: Sequence[int]) -> tuple[bytes, bytes]:
    """An element of `stacks`. What is behind the last frame was another stack's."""
    frames = STACKS.constants["FRAMES"]
    rest = [0xDEAD] * (frames - len(ips))
    return struct.pack("=Q", key), struct.pack(f"={1 + frames}Q", len(ips), *ips, *rest)


def sum_element(calls: int, time: int = 0, **key: Any) -> tuple[bytes, bytes]:
    """An element of `stack_sums`."""
    raw = bytearray(STACKS.size("stack_key"))
    for name, value in key.items():
        one = STACKS.structs["stack_key"].members[name]
        packed = value if name == "comm" else struct.pack("=Q" if one.size == 8 else "=I", value)
        raw[one.offset : one.offset + len(packed)] = packed
    return bytes(raw), struct.pack("=QQ", calls, time)


def values(
    monkeypatch: pytest.MonkeyPatch,
    sums: Sequence[tuple[bytes, bytes]],
    stacks: Mapping[int, Sequence[int]],
) -> Any:
    items = [stack_element(key, ips) for key, ips in stacks.items()]

    def map_items(_fd: int, key_size: int, value_size: int) -> Sequence[tuple[bytes, bytes]]:
        assert all((len(key), len(value)) == (key_size, value_size) for key, value in items)
        return items

    monkeypatch.setattr(bpf, "map_items", map_items)
    maps = FakeMaps({"stacks_lost": 4}, hashes={"stack_sums": sums})
    return Stacks().reader(cast(Any, maps)).snapshot(cast(Any, None))


def test_stacks_of_each_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    found = values(
        monkeypatch,
        [
            sum_element(3, 500, slot=1, kernel=11),
            sum_element(4, slot=1, kernel=12),
            sum_element(5, slot=2, kernel=11),
            sum_element(6, slot=2, kernel=11, error=28),
            sum_element(7, slot=2, kernel=11, error=512),
            # Inserted, and not counted yet.
            sum_element(0, slot=3, kernel=11),
        ],
        {11: [ENTRY, CALLER], 12: [ENTRY]},
    )
    assert dict(found[1]) == {
        CallStack((ENTRY, CALLER)): StackSum(3, 500),
        CallStack((ENTRY,)): StackSum(4, 0),
    }
    assert {stack.error: one.calls for stack, one in found[2].items()} == {
        "": 5,
        "ENOSPC": 6,
        "ERESTARTSYS": 7,
    }
    assert not found[3]


def test_stacks_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = values(
        monkeypatch,
        [
            sum_element(1, slot=1, kernel=11, user=13, pid=7, comm=b"cat"),
            sum_element(2, slot=1, kernel=11, user=13, pid=8, comm=b"c\xff"),
            sum_element(3, slot=1, kernel=11, pid=9, comm=b"x" * 16),
        ],
        {11: [ENTRY], 13: [USER]},
    )
    assert [stack[1:4] for stack in found[1]] == [
        ((USER,), 7, "cat"),
        ((USER,), 8, "c\\xff"),
        # A kernel thread has no stack in user space.
        ((), 9, "x" * 16),
    ]


def test_the_longest_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    ips = list(range(1, STACKS.constants["FRAMES"] + 1))
    found = values(monkeypatch, [sum_element(1, slot=1, kernel=11)], {11: ips})
    ((stack, _),) = found[1].items()
    assert list(stack.kernel) == ips


def test_stacks_that_are_shown_alike_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of tasks may differ in what follows their end; unknown stacks are all alike."""
    found = values(
        monkeypatch,
        [sum_element(1, 10, slot=1, kernel=98), sum_element(2, 20, slot=1, kernel=99)],
        {},
    )
    assert dict(found[1]) == {CallStack(()): StackSum(3, 30)}


def test_sums() -> None:
    sums = StackSums({A: StackSum(3, 50), B: StackSum(4)})
    assert sums.total == StackSum(7, 50)
    assert StackSums({}).total == StackSum(0, 0)
    assert repr(sums) == "<StackSums 7 calls from 2 stacks>"
    assert [column.cell(sums) for column in Stacks().columns] == [7, 2]


def test_differences() -> None:
    earlier = StackSums({A: StackSum(3, 50), B: StackSum(4)})
    later = StackSums({A: StackSum(5, 80), B: StackSum(4), CallStack(()): StackSum(1, 1)})
    assert dict(later - earlier) == {A: StackSum(2, 30), CallStack(()): StackSum(1, 1)}
    assert not later - later
    assert dict(later - StackSums({})) == dict(later)


def test_lost_calls_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = FakeMaps({"stacks_lost": 4}, hashes={"stack_sums": []})
    maps.arrays["stacks_lost"].cells[2] = 5
    monkeypatch.setattr(bpf, "map_items", lambda *_arguments: [])
    found = Stacks().reader(cast(Any, maps)).snapshot(cast(Any, None))
    maps.arrays["stacks_lost"].cells[2] = 9
    assert (found[1].lost, found[2].lost) == (0, 5)
    assert (found[2] - StackSums({}, 3)).lost == 2


def test_json() -> None:
    action = Stacks()
    everything = CallStack((ENTRY, CALLER), (USER,), 7, "cat", "ENOSPC")
    found = action.to_json(StackSums({everything: StackSum(3, 500), CallStack(()): StackSum(1)}))
    assert json.loads(json.dumps(found)) == [
        {
            "kernel": [f"{ENTRY:#x}", f"{CALLER:#x}"],
            "user": [f"{USER:#x}"],
            "pid": 7,
            "comm": "cat",
            "error": "ENOSPC",
            "calls": 3,
            "time_ns": 500,
        },
        {"kernel": [], "calls": 1},
    ]


def test_what_the_programs_are_told() -> None:
    assert Stacks().constants() == {"USER_STACKS": 0}
    assert Stacks(user=True).constants() == {"USER_STACKS": 1}
    assert CallTimeStacks().constants_at_return() == {"ONLY_ERRORS": 0}
    assert CallTimeStacks(only_errors=True).constants_at_return() == {"ONLY_ERRORS": 1}
    # All functions have stacks and times.
    assert CallTimeStacks().prepare([], cast(Any, None)) == {}


def test_what_found_no_room_is_lost() -> None:
    maps = FakeMaps({"stacks_lost": 4})
    reader = Stacks().reader(cast(Any, maps))
    assert reader.lost() == 0
    maps.arrays["stacks_lost"].cells[2] = 5
    assert reader.lost() == 5


@pytest.mark.parametrize(
    ("action", "expected"),
    [(Stacks(), 0), (CallTimeStacks(only_errors=True), 0), (CallTimeStacks(), 3)],
)
def test_calls_that_have_not_returned(
    monkeypatch: pytest.MonkeyPatch, action: Stacks, expected: int
) -> None:
    maps = FakeMaps(
        {"stacks_lost": 4}, hashes={"stack_sums": [sum_element(4, 40, slot=2, kernel=11)]}
    )
    maps.arrays["stacks_lost"].cells[2] = 1
    monkeypatch.setattr(bpf, "map_items", lambda *_arguments: [])
    found = action.reader(cast(Any, maps)).snapshot(cast(Any, [0, 0, 8, 0]))
    assert found[2].unfinished == expected
    is_known = isinstance(action, CallTimeStacks) and expected
    assert action.unfinished(found[2]) == (expected if is_known else None)
    # A call was added up after its hit could be read.
    early = action.reader(cast(Any, maps)).snapshot(cast(Any, [0, 0, 4, 0]))
    assert early[2].unfinished == 0
