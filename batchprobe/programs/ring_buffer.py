# SPDX-License-Identifier: Apache-2.0
"""A BPF ring buffer (Linux 5.8), mapped into this process and read without system calls."""

from __future__ import annotations

import os
import struct
from threading import Lock

from batchprobe.errors import KernelError
from batchprobe.programs.maps import MapSpec
from batchprobe.sys import bpf, fds, libc

__all__ = ["RingBuffer"]

# include/uapi/linux/bpf.h
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER_SIZE = 8
_LENGTH = struct.Struct("=I")


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

    def take(self, most: int | None = None) -> tuple[bytes, list[int]]:
        """Take out up to `most` records, or all that are complete: a copy of them, and where each
        begins in it.
        """
        begin = at = self._consumer[0]
        end, mask, wrap, data_at = self._producer[0], self._size - 1, self._wrap, self._data_at
        # A weakly ordered CPU may read headers before the position that says they are there,
        self._keep_order()
        first = data_at + (begin & mask)
        starts: list[int] = []
        length_at = _LENGTH.unpack_from
        while at != end and len(starts) != most:
            start = data_at + (at & mask)
            (length,) = length_at(self._memory, start)
            if length & _BUSY:
                break
            if not length & _DISCARDED:
                starts.append((at - begin) % wrap + _HEADER_SIZE)
            at = (at + (length & ~_DISCARDED) + _HEADER_SIZE + 7 & ~7) % wrap
        # records before the headers that say they are complete,
        self._keep_order()
        taken = bytes(self._memory[first : first + (at - begin) % wrap])
        # and may hand their room back before it has read them.
        self._keep_order()
        self._consumer[0] = at
        return taken, starts

    def _keep_order(self) -> None:
        """Let no access to memory pass this point: a release and the next acquire do not."""
        for _ in range(2):
            with self._fence:
                pass

    def close(self) -> None:
        """Unmap and close it."""
        self._producer.release()
        self._memory.release()
        self._consumer.release()
        fds.close(self.fd)
