"""Files that spare the next start some work: only this user's own are trusted, none is needed."""

from __future__ import annotations

import contextlib
import os

from batchprobe._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["read", "write"]


def read(file: str | PathLike[str]) -> bytes | None:
    """What was kept there; None if nothing was, or anybody else could have written it."""
    # Not mapped: Python's mmap keeps a descriptor.
    try:
        with open(file, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            return stream.readall()
    except OSError:
        # Absent, or not for us: it is made anew.
        return None


def write(file: str | PathLike[str], data: bytes) -> None:
    """Keep it, if that can be done: nobody sees half of it."""
    temporary = f"{file}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.replace(temporary, file)
    except OSError:
        # A read-only or full disk costs the next start its time, nothing else.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
