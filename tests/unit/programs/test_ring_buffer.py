# SPDX-License-Identifier: Apache-2.0
"""A ring buffer is read as kernel/bpf/ringbuf.c writes it."""

from __future__ import annotations

import os
import struct
import sys
from collections import deque
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchprobe.errors import KernelError
from batchprobe.programs.maps import MapSpec
from batchprobe.programs.ring_buffer import RingBuffer
from batchprobe.sys import bpf, fds, libc

PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30
LONG = struct.calcsize("L")
WRAP = 1 << 8 * LONG


class Ring:
    """What the kernel maps into the process, and the programs that write there."""

    def __init__(self, position: int = 0) -> None:
        self.pages = bytearray(2 * PAGE + 2 * SIZE)
        self.consumer = bytearray(PAGE)
        self.consumer[:LONG] = position.to_bytes(LONG, sys.byteorder)
        self.mapped: list[bool] = []
        self.closed: list[int] = []
        self.can_map_data = True
        self._produced(position)

    def map(self, _name: str, _fd: int, size: int, *, writable: bool = False) -> memoryview:
        """As libc.mapped() does."""
        if not (writable or self.can_map_data):
            raise KernelError("mmap(ring)", 12)
        self.mapped.append(writable)
        memory = memoryview(self.consumer if writable else self.pages)[:size]
        return memory if writable else memory.toreadonly()

    @property
    def consumed(self) -> int:
        return int.from_bytes(self.consumer[:LONG], sys.byteorder)

    def _produced(self, position: int) -> None:
        self.position = position
        self.pages[PAGE : PAGE + LONG] = position.to_bytes(LONG, sys.byteorder)

    def _write(self, position: int, content: bytes) -> None:
        for index, byte in enumerate(content):
            # The data is mapped twice.
            at = 2 * PAGE + (position + index) % SIZE
            self.pages[at] = self.pages[at + SIZE] = byte

    def reserve(self, content: bytes) -> int | None:
        """A record that is not submitted yet; None if there is no room."""
        end = self.position + (8 + len(content) + 7 & ~7)
        if (end - self.consumed) % WRAP > SIZE - 1:
            return None
        at = self.position
        # The second word is where the record's page is.
        self._write(at, struct.pack("=II", len(content) | BUSY, 0xDEAD) + content)
        self._produced(end % WRAP)
        return at

    def submit(self, at: int, length: int, *, discard: bool = False) -> None:
        self._write(at, struct.pack("=I", length | (DISCARDED if discard else 0)))

    def put(self, content: bytes) -> None:
        at = self.reserve(content)
        assert at is not None
        self.submit(at, len(content))


def opened(monkeypatch: pytest.MonkeyPatch, ring: Ring) -> RingBuffer:
    monkeypatch.setattr(bpf, "map_create", lambda *_args, **_options: 77)
    monkeypatch.setattr(libc, "mapped", ring.map)
    monkeypatch.setattr(fds, "close", ring.closed.append)
    return RingBuffer(MapSpec.ring("ring", SIZE))


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
def buffer(monkeypatch: pytest.MonkeyPatch, ring: Ring) -> RingBuffer:
    return opened(monkeypatch, ring)


def contents(taken: bytes, starts: Sequence[int]) -> list[bytes]:
    """The records that were taken; the length of each is before it."""
    found = []
    for start in starts:
        assert start % 8 == 0
        (length,) = struct.unpack_from("=I", taken, start - 8)
        found.append(taken[start : start + (length & ~DISCARDED)])
        assert len(found[-1]) == length
    return found


def read(buffer: RingBuffer, most: int | None = None) -> list[bytes]:
    return contents(*buffer.take(most))


def test_an_empty_one(buffer: RingBuffer, ring: Ring) -> None:
    assert read(buffer) == []
    assert ring.consumed == 0


def test_records_are_read_once_and_in_order(buffer: RingBuffer, ring: Ring) -> None:
    records = [b"", b"1", b"12345678", b"123456789", b"x" * 300]
    for each in records:
        ring.put(each)
    assert read(buffer) == records
    assert read(buffer) == []
    assert ring.consumed == ring.position == 8 + 16 + 16 + 24 + 312
    ring.put(b"more")
    assert read(buffer) == [b"more"]


def test_a_discarded_record_is_passed_over(buffer: RingBuffer, ring: Ring) -> None:
    ring.put(b"first")
    at = ring.reserve(b"discarded")
    assert at is not None
    ring.submit(at, 9, discard=True)
    ring.put(b"last")
    assert read(buffer) == [b"first", b"last"]
    assert ring.consumed == ring.position
    at = ring.reserve(b"alone")
    assert at is not None
    ring.submit(at, 5, discard=True)
    assert read(buffer) == []
    assert ring.consumed == ring.position


def test_a_record_that_is_written_holds_the_rest_up(buffer: RingBuffer, ring: Ring) -> None:
    ring.put(b"first")
    at = ring.reserve(b"busy")
    assert at is not None
    ring.put(b"last")
    assert read(buffer) == [b"first"]
    assert ring.consumed == at
    assert read(buffer) == []
    ring.submit(at, 4)
    assert read(buffer) == [b"busy", b"last"]


def test_a_record_at_the_end_of_the_data_is_not_split(buffer: RingBuffer, ring: Ring) -> None:
    for _ in range(3):
        ring.put(b"a" * (SIZE // 2 - 100))
        assert len(read(buffer)) == 1
    assert ring.position > SIZE
    records = [bytes([n]) * 200 for n in range(40)]
    for each in records:
        ring.put(each)
        assert read(buffer) == [each]


def test_positions_wrap_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 32 bits they do, after 4 GiB."""
    ring = Ring(WRAP - 24)
    buffer = opened(monkeypatch, ring)
    ring.put(b"last before")
    assert ring.position == 0
    assert read(buffer) == [b"last before"]
    assert ring.consumed == 0
    ring.put(b"first after")
    assert read(buffer) == [b"first after"]


def test_some_of_many(buffer: RingBuffer, ring: Ring) -> None:
    records = [bytes([n]) * n for n in range(10)]
    for each in records:
        ring.put(each)
    at = ring.reserve(b"discarded")
    assert at is not None
    ring.submit(at, 9, discard=True)
    assert read(buffer, 4) == records[:4]
    assert read(buffer, 0) == []
    assert read(buffer, 6) == records[4:]
    assert ring.consumed == at
    assert read(buffer, 6) == []
    assert ring.consumed == ring.position


def test_what_was_taken_is_a_copy(buffer: RingBuffer, ring: Ring) -> None:
    ring.put(b"first")
    taken, starts = buffer.take()
    ring.put(b"other")
    ring.pages[2 * PAGE :] = bytes(2 * SIZE)
    assert contents(taken, starts) == [b"first"]


def test_only_the_consumers_position_can_be_written(buffer: RingBuffer, ring: Ring) -> None:
    assert ring.mapped == [True, False]
    buffer.close()
    assert ring.closed == [77]
    with pytest.raises(ValueError, match="released"):
        read(buffer)


def test_a_failed_mapping_closes_it(monkeypatch: pytest.MonkeyPatch, ring: Ring) -> None:
    ring.can_map_data = False
    with pytest.raises(KernelError):
        opened(monkeypatch, ring)
    assert ring.closed == [77]


LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 65, 500, SIZE - 9, SIZE]))
STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "reserve", "put", "discard"]), LENGTHS),
    st.tuples(st.sampled_from(["submit", "drop", "read"]), st.integers(0, 9)),
)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


class Record:
    """What a program wrote, or writes."""

    def __init__(self, content: bytes, at: int, *, is_busy: bool, is_discarded: bool) -> None:
        self.content = content
        self.at = at
        self.is_busy = is_busy
        self.is_discarded = is_discarded

    def submit(self, ring: Ring, *, discard: bool) -> None:
        ring.submit(self.at, len(self.content), discard=discard)
        self.is_busy, self.is_discarded = False, discard


@settings(deadline=None)
@given(steps=st.lists(STEPS, max_size=40), start=st.integers(0, 4 * SIZE // 8))
def test_random_writers(
    patched: pytest.MonkeyPatch, steps: list[tuple[str, int]], start: int
) -> None:
    ring = Ring(8 * start)
    buffer = opened(patched, ring)
    model: deque[Record] = deque()

    def check(most: int | None = None) -> None:
        expected: list[bytes] = []
        while model and not model[0].is_busy and len(expected) != most:
            first = model.popleft()
            if not first.is_discarded:
                expected.append(first.content)
        assert read(buffer, most) == expected

    for serial, (step, number) in enumerate(steps):
        busy = [each for each in model if each.is_busy]
        if step in ("put", "reserve", "discard"):
            written = bytes([serial]) * number
            at = ring.reserve(written)
            if at is not None:
                model.append(Record(written, at, is_busy=True, is_discarded=False))
                if step != "reserve":
                    model[-1].submit(ring, discard=step == "discard")
        elif step == "read":
            check(number if number < 5 else None)
        elif busy:
            busy[number % len(busy)].submit(ring, discard=step == "drop")
    for each in model:
        if each.is_busy:
            each.submit(ring, discard=False)
    check()
    assert ring.consumed == ring.position
