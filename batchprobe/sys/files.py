# SPDX-License-Identifier: Apache-2.0
"""Small files by path. Not with pathlib, whose import costs 3 to 5 ms of every start."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from os import PathLike

__all__ = ["RUN_FOLDER", "exists", "open_shared", "read_bytes", "read_text", "read_waiting"]

RUN_FOLDER = "/run/batchprobe"
"""What the batchprobe processes of this boot share. Root's."""

_WAIT_MS = 100
_CHUNK = 1 << 16


def read_bytes(path: str | PathLike[str]) -> bytes:
    """The contents of a file. Raises OSError."""
    # Unbuffered: files of procfs and sysfs report no useful size.
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def read_text(path: str | PathLike[str]) -> str:
    """The contents of a file as UTF-8, invalid bytes replaced. Raises OSError."""
    # Files of /proc contain process names, which may be any bytes.
    return read_bytes(path).decode(errors="replace")


def read_waiting(fd: int, check: Callable[[], None]) -> bytes:
    """All that comes from a descriptor until its end, which a pipe or a terminal may keep us
    waiting for. `check` is called meanwhile, and may raise. Raises OSError.
    """
    incoming = select.poll()
    incoming.register(fd, select.POLLIN)
    chunks = []
    while True:
        check()
        # A FIFO that nobody has opened for writing yet has nothing, and no end either.
        if incoming.poll(_WAIT_MS):
            chunks.append(os.read(fd, _CHUNK))
            if not chunks[-1]:
                return b"".join(chunks)


def open_shared(name: str, folder: str | PathLike[str] = RUN_FOLDER) -> int:
    """Open a file of the folder, both created if need be; returns its descriptor. Raises OSError.

    Every user may read it.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o755)
    return os.open(f"{folder}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def exists(path: str | PathLike[str]) -> bool:
    """Whether a file exists where this user can see it."""
    return os.access(path, os.F_OK)
