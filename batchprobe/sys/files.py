"""Small files by their path, without pathlib: its import takes half as long as an attach."""

from __future__ import annotations

import os
from os import PathLike

__all__ = ["exists", "read_bytes", "read_text"]


def read_bytes(path: str | PathLike[str]) -> bytes:
    """All of a file. Raises OSError."""
    # Unbuffered: a file of the kernel's has no size to go by.
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def read_text(path: str | PathLike[str]) -> str:
    """The same as text. Raises OSError."""
    # A process may have any name.
    return read_bytes(path).decode(errors="replace")


def exists(path: str | PathLike[str]) -> bool:
    """Whether there is such a file, for this user."""
    return os.access(path, os.F_OK)
