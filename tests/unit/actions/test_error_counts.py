# SPDX-License-Identifier: Apache-2.0
"""Errors as the reader finds them, their differences, and how they are shown."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from c_layout import ERRORS
from fake_maps import FakeMaps, probe

from batchprobe.actions.errors import Errors, Failure, Failures
from batchprobe.actions.stacks import CallTimeStacks
from batchprobe.output.text import TextSink


def element(slot: int, error: int, count: int, *, tid: int = 8, comm: bytes = b"cat") -> Any:
    """A key of the map `failures`, and its struct failure."""
    value = bytearray(ERRORS.size("failure"))
    at = ERRORS.offsets("failure")
    native = memoryview(value).cast("Q")
    native[at["count"] // 8] = count
    native[at["ids"] // 8] = 7 << 32 | tid
    value[at["comm"] : at["comm"] + len(comm)] = comm
    key = bytearray(8)
    memoryview(key).cast("Q")[0] = slot << 32 | error
    return bytes(key), bytes(value)


def values(*elements: Any) -> Any:
    maps = FakeMaps({"failures_lost": 4}, hashes={"failures": elements})
    return Errors().reader(cast(Any, maps)).snapshot(cast(Any, None))


def failures(**counts: int) -> Failures:
    return Failures(
        {
            name: Failure(error=name, count=count, pid=7, tid=count, comm="cat")
            for name, count in counts.items()
        }
    )


def counts(found: Failures) -> dict[str, int]:
    return {name: one.count for name, one in found.items()}


def test_errors_of_each_slot() -> None:
    found = values(
        element(1, 28, 3, tid=9, comm=b"dd\0\0"),
        element(2, 28, 4),
        element(1, 2, 1),
        element(70_000, 512, 1),
        element(70_000, 1234, 1),
        # Inserted by a program that has not counted it yet.
        element(2, 5, 0),
    )
    assert counts(found[1]) == {"ENOSPC": 3, "ENOENT": 1}
    assert counts(found[2]) == {"ENOSPC": 4}
    assert counts(found[70_000]) == {"ERESTARTSYS": 1, "E1234": 1}
    assert not found[3]
    one = found[1]["ENOSPC"]
    assert (one.error, one.count, one.pid, one.tid, one.comm) == ("ENOSPC", 3, 7, 9, "dd")


def test_names_of_tasks() -> None:
    found = values(element(1, 1, 1, comm=b"f\xc3\xbcr\xff"), element(1, 2, 1, comm=b"x" * 16))
    assert [one.comm for one in found[1].values()] == ["für\\xff", "x" * 16]


def test_differences() -> None:
    earlier, later = failures(ENOSPC=3, ENOENT=1), failures(ENOSPC=5, ENOENT=1, EIO=2)
    assert counts(later - earlier) == {"ENOSPC": 2, "EIO": 2}
    # The last task is that of the later one.
    assert (later - earlier)["ENOSPC"].tid == 5
    assert not later - later
    assert counts(later - failures()) == counts(later)
    assert counts(later) == {"ENOSPC": 5, "ENOENT": 1, "EIO": 2}


def test_json() -> None:
    assert Errors().to_json(failures(ENOSPC=3)) == {
        "ENOSPC": {"count": 3, "pid": 7, "tid": 3, "comm": "cat"}
    }
    assert Errors().to_json(failures()) == {}


def test_a_row_for_each_error_the_most_frequent_first() -> None:
    out = io.StringIO()
    TextSink(out, Errors()).final(
        {
            probe("vfs_read", 1): failures(EIO=3, EINTR=20),
            probe("vfs_write", 2): failures(ENOSPC=7),
            probe("vfs_open", 3): failures(),
        }
    )
    assert out.getvalue().splitlines()[:4] == [
        "COUNT   ERROR  LAST PID  LAST COMM  FUNCTION",
        "   20   EINTR         7        cat  vfs_read",
        "    7  ENOSPC         7        cat  vfs_write",
        "    3     EIO         7        cat  vfs_read",
    ]


def test_a_task_cannot_write_to_the_terminal() -> None:
    out = io.StringIO()
    failure = Failure(error="EIO", count=1, pid=7, tid=7, comm="\x1b[2J\n")
    TextSink(out, Errors()).final({probe("vfs_read", 1): Failures({"EIO": failure})})
    assert out.getvalue().splitlines()[1].split() == ["1", "EIO", "7", "\\x1b[2J\\n", "vfs_read"]


def test_what_found_no_room_is_lost() -> None:
    maps = FakeMaps({"failures_lost": 4}, hashes={"failures": []})
    reader = Errors().reader(cast(Any, maps))
    assert reader.lost() == 0
    maps.arrays["failures_lost"].cells[1] = 3
    maps.arrays["failures_lost"].cells[3] = 4
    assert reader.lost() == 7


@pytest.mark.parametrize("make", [Errors, partial(CallTimeStacks, only_errors=True)])
def test_a_note_says_what_was_guessed(make: Callable[[], Errors | CallTimeStacks]) -> None:
    errors = make()
    assert errors.notes() == ()
    errors._results.untyped = {"one": "BTF leaves it out", "two": "another reason"}
    assert errors.notes() == [
        "2 functions of unknown type (one: BTF leaves it out): "
        "a negative int or long was taken as an error"
    ]
