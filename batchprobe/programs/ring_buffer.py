# SPDX-License-Identifier: Apache-2.0
"""A BPF ring buffer (Linux 5.8), mapped into this process and read without system calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from threading import Lock

from batchprobe.errors import KernelError
from batchprobe.programs.maps import MapSpec
from batchprobe.sys import bpf, fds, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["RingBuffer"]

# include/uapi/linux/bpf.h
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER_SIZE = 8


class RingBuffer:
    """The records that programs put into it, in that order.

    The pages are those of struct bpf_ringbuf (kernel/bpf/ringbuf.c): the consumer's position, which
    this process writes, the producers' position, and the data twice, so that no record is split.
    """

    def __init__(self, spec: MapSpec) -> None:
        """Create it; `spec.entries` is its size in bytes, a power of two. Raises KernelError."""
        self.fd = bpf.map_create(
            spec.name, spec.map_type, key_size=0, value_size=0, entries=spec.entries
        )
        page = os.sysconf("SC_PAGE_SIZE")
        self._size = spec.entries
        self._data_at = 2 * page
        try:
            # Positions are unsigned long. Only the first page may be mapped for writing.
            self._consumer = libc.mapped(spec.name, self.fd, page, writable=True).cast("L")
            self._memory = libc.mapped(spec.name, self.fd, 2 * page + 2 * self._size)
        except KernelError:
            fds.close(self.fd)
            raise
        self._producer = self._memory[page : 2 * page].cast("L")
        self._wrap = 1 << 8 * self._producer.itemsize
        self._fence = Lock()

    def read(self, decode: Callable[[memoryview, int, int], _T]) -> list[_T]:
        """What `decode` makes of each record that is complete: it gets the memory, and where the
        record begins and ends in it. The records are gone when all are decoded.
        """
        begin = self._consumer[0]
        at, found = begin, []
        end = self._producer[0]
        mask, memory, data_at = self._size - 1, self._memory, self._data_at
        while at != end:
            start = data_at + (at & mask)
            length = int.from_bytes(memory[start : start + 4], sys.byteorder)
            if length & _BUSY:
                break
            if not length & _DISCARDED:
                found.append((start + _HEADER_SIZE, length))
            at = (at + (length & ~_DISCARDED) + _HEADER_SIZE + 7 & ~7) % self._wrap
        # A weakly ordered CPU may read the records before their headers. A release and the next
        # acquire keep it from that.
        for _ in range(2):
            with self._fence:
                pass
        records = [decode(memory, start, start + length) for start, length in found]
        self._consumer[0] = at
        return records

    def close(self) -> None:
        """Unmap and close it."""
        self._producer.release()
        self._memory.release()
        self._consumer.release()
        fds.close(self.fd)
