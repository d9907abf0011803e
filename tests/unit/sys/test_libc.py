# SPDX-License-Identifier: Apache-2.0
"""Mappings of files, and shared memory, without a kernel of our own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchprobe.errors import KernelError
from batchprobe.sys import libc


def is_mapped(file: Path) -> bool:
    return str(file) in Path("/proc/self/maps").read_text()


def open_descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def test_a_mapping_ends_with_its_last_view_and_keeps_no_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    before = open_descriptors()
    fd = os.open(file, os.O_RDWR)
    view = libc.mapped("file", fd, 10, writable=True)
    os.close(fd)
    assert open_descriptors() == before
    part = view[2:4]
    part[0] = ord("x")
    assert file.read_bytes() == b"01x3456789"
    del view
    assert is_mapped(file)
    assert bytes(part) == b"x3"
    del part
    assert not is_mapped(file)


def test_a_mapping_is_read_only_by_default(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    with file.open("rb") as stream:
        view = libc.mapped("file", stream.fileno(), 10)
    assert (bytes(view), view.readonly) == (b"0123456789", True)


def test_a_failed_call_raises_its_errno() -> None:
    with pytest.raises(KernelError, match="mmap") as raised:
        libc.mapped("nothing", -1, 10)
    assert raised.value.errno == errno.EBADF
    with pytest.raises(KernelError, match="nonsense") as raised:
        libc.syscall("nonsense", 0xFFFFFF)
    assert raised.value.errno == errno.ENOSYS
    with Path(os.devnull).open() as null, pytest.raises(KernelError, match="ioctl") as raised:
        libc.ioctl("ioctl", null.fileno(), 0, 0)
    assert raised.value.errno == errno.ENOTTY


SHARES = """
import os
from batchprobe.sys import libc

memory = bytearray(b"kept")
libc.share_memory(2)
os._exit(7)
"""


def test_what_shares_memory_outlives_the_process_and_ends() -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen((sys.executable, "-c", SHARES), pass_fds=(writer,))
    os.close(writer)
    try:
        assert process.wait() == 7
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b"", "it ended, and closed what it shared"
    finally:
        os.close(reader)
