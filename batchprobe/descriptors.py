"""The file descriptors that hold kernel objects: closed in a forked child, which would else keep
them alive.

Those between fork and exec are no matter: all are close-on-exec.
"""

from __future__ import annotations

import contextlib
import os

__all__ = ["close", "opened"]

_open: set[int] = set()


def opened(fd: int) -> int:
    """Note a descriptor that holds a kernel object; returns it."""
    _open.add(fd)
    return fd


def close(fd: int) -> None:
    """Close a noted descriptor."""
    # Forgotten first: a child forked in between must not close a number that is another's by then.
    _open.discard(fd)
    os.close(fd)


def _close_in_child() -> None:
    while _open:
        with contextlib.suppress(OSError):  # closed by another thread just before the fork
            os.close(_open.pop())


os.register_at_fork(after_in_child=_close_in_child)
