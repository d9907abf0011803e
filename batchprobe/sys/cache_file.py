"""Files that spare the next start some work: only this user's own are trusted, none is needed."""

from __future__ import annotations

import os
from contextlib import suppress
from os import PathLike

from batchprobe.errors import KernelError
from batchprobe.sys import bpf

__all__ = ["read", "write"]


def read(file: str | PathLike[str]) -> memoryview | None:
    """What was kept there; None if nothing was, or anybody else could have written it.

    It is mapped, for who looks a few things up in 5 MB: nobody shortens a file of ours.
    """
    try:
        with open(file, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022 or not status.st_size:
                return None
            return bpf.mapped(os.fspath(file), stream.fileno(), status.st_size)
    except (OSError, KernelError):
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
        with suppress(OSError):
            os.unlink(temporary)
