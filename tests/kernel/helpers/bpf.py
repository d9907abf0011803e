# SPDX-License-Identifier: Apache-2.0
"""bpf(2) without batchprobe: ids of programs and links, and a link of another tool."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from batchprobe import arch
from batchprobe.sys import bpf

__all__ = ["foreign_link", "link_ids", "program_ids"]

# include/uapi/linux/bpf.h
_PROG_LOAD, _PROG_NEXT_ID, _RAW_TRACEPOINT_OPEN, _LINK_NEXT_ID = 5, 11, 17, 31
_PROG_TYPE_RAW_TRACEPOINT = 17
_ATTR_SIZE = 128
# The smallest program that another tool could load.
_PROGRAM = ctypes.create_string_buffer(bpf.RETURN_0)
_LICENSE = ctypes.create_string_buffer(b"GPL")
# Fires when a task is created, and only then.
_TRACEPOINT = ctypes.create_string_buffer(b"task_newtask")


def _bpf(command: int, attr: bytes) -> tuple[int, bytes]:
    """Returns the result, and the attributes as the kernel changed them."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, _ATTR_SIZE)
    result: int = libc.syscall(arch.current().syscalls.bpf, command, buffer, _ATTR_SIZE)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result, buffer.raw


def _ids(command: int) -> frozenset[int]:
    found: list[int] = []
    while True:
        try:
            _, attr = _bpf(command, struct.pack("=I", found[-1] if found else 0))
        except OSError as error:
            if error.errno == errno.ENOENT:  # no more ids
                return frozenset(found)
            raise
        found.append(struct.unpack_from("=I", attr, 4)[0])


def program_ids() -> frozenset[int]:
    """The ids of all loaded programs."""
    return _ids(_PROG_NEXT_ID)


def link_ids() -> frozenset[int]:
    """The ids of all links (Linux 5.8)."""
    return _ids(_LINK_NEXT_ID)


@contextlib.contextmanager
def foreign_link() -> Iterator[None]:
    """Inside this block, a program and a link of another tool exist."""
    attr = struct.pack(
        "=IIQQ",
        _PROG_TYPE_RAW_TRACEPOINT,
        len(bpf.RETURN_0) // 8,
        ctypes.addressof(_PROGRAM),
        ctypes.addressof(_LICENSE),
    )
    program, _ = _bpf(_PROG_LOAD, attr)
    try:
        attr = struct.pack("=QI", ctypes.addressof(_TRACEPOINT), program)
        link, _ = _bpf(_RAW_TRACEPOINT_OPEN, attr)
    finally:
        os.close(program)
    try:
        yield
    finally:
        os.close(link)
