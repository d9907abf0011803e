# SPDX-License-Identifier: Apache-2.0
"""Cache files: optional, replaced atomically, and trusted only if no other user can write them."""

from __future__ import annotations

import os
from contextlib import suppress
from os import PathLike

from batchprobe.errors import KernelError
from batchprobe.sys import libc

__all__ = ["read", "write"]


def read(file: str | PathLike[str]) -> memoryview | None:
    """Map a cache file; None if it is absent, empty, or writable by another user."""
    # Mapped because a start touches a few pages of 5 MB, which is safe because `write` replaces
    # the file and nothing truncates it.
    try:
        with open(file, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022 or not status.st_size:
                return None
            return libc.mapped(os.fspath(file), stream.fileno(), status.st_size)
    except (OSError, KernelError):
        return None


def write(file: str | PathLike[str], data: bytes) -> None:
    """Replace a cache file atomically. Does nothing if it cannot be written."""
    temporary = f"{file}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.replace(temporary, file)
    except OSError:
        # A full or read-only disk: the next start computes the data again.
        with suppress(OSError):
            os.unlink(temporary)
