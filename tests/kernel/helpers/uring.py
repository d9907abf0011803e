# SPDX-License-Identifier: Apache-2.0
"""Run as a script: calls fallocate(2) a known number of times by io_uring, whose worker thread does
it for the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import tempfile

__all__ = ["FALLOCATES", "SCRIPT"]

SCRIPT = __file__
FALLOCATES = 20
# arch/x86/entry/syscalls/syscall_64.tbl; the same on all architectures.
_SETUP, _ENTER = 425, 426
# include/uapi/linux/io_uring.h
_FALLOCATE, _ASYNC, _GET_EVENTS = 17, 1 << 4, 1
_PARAMS = 120
_SQ_OFFSETS, _CQ_OFFSETS = 40, 80
_SQE_SIZE, _SQES_AT = 64, 0x10000000


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main() -> None:
    params = ctypes.create_string_buffer(_PARAMS)
    ring = _call(_SETUP, 1, params)
    _, tail, _, _, _, _, array = struct.unpack_from("7I", params, _SQ_OFFSETS)
    cq_head, cq_tail, cq_mask, _, _, cqes = struct.unpack_from("6I", params, _CQ_OFFSETS)
    # Both rings are in one mapping since Linux 5.4.
    rings = mmap.mmap(ring, mmap.PAGESIZE)
    entries = mmap.mmap(ring, mmap.PAGESIZE, offset=_SQES_AT)
    with tempfile.TemporaryFile() as file:
        for at in range(FALLOCATES):
            # Of its arguments, the length is in `addr` and the mode in `len`.
            entry = struct.pack("BBHiQQI", _FALLOCATE, _ASYNC, 0, file.fileno(), 0, 4096, 0)
            entries[:_SQE_SIZE] = entry.ljust(_SQE_SIZE, b"\0")
            struct.pack_into("I", rings, array, 0)
            struct.pack_into("I", rings, tail, at + 1)
            _call(_ENTER, ring, 1, 1, _GET_EVENTS, None, 0)
            (done,) = struct.unpack_from("I", rings, cq_tail)
            (mask,) = struct.unpack_from("I", rings, cq_mask)
            (result,) = struct.unpack_from("i", rings, cqes + (at & mask) * 16 + 8)
            assert (done, result) == (at + 1, 0), (done, result)
            struct.pack_into("I", rings, cq_head, at + 1)


if __name__ == "__main__":
    main()
