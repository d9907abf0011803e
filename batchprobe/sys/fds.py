"""The file descriptors that hold kernel objects, and what a fork does about them.

A forked child would keep its parent's probes alive: there they are closed. Between fork and exec
it does so for a moment all the same, for close-on-exec comes only then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, RLock, get_ident

__all__ = ["close", "open_noted"]

_open: set[int] = set()
# Who is opening or closing one holds such a lock, here with its thread: os.fork() waits for it, or
# the child would inherit what is not noted yet, or not any more.
_busy: dict[Lock, int] = {}
_entrance = RLock()


@contextmanager
def _no_fork() -> Iterator[None]:
    mine = Lock()
    mine.acquire()
    with _entrance:
        _busy[mine] = get_ident()
    try:
        yield
    finally:
        # Not by the entrance, where a fork may be waiting for us.
        del _busy[mine]
        mine.release()


def open_noted(make: Callable[[], int]) -> int:
    """Call `make`, which opens a descriptor; returns it, noted."""
    with _no_fork():
        fd = make()
        _open.add(fd)
    return fd


def close(fd: int) -> None:
    """Close a noted descriptor."""
    with _no_fork():
        _open.discard(fd)
        os.close(fd)


def _before_fork() -> None:
    me = get_ident()
    _entrance.acquire()
    for lock, thread in list(_busy.items()):
        # Not for this thread: it forks in a signal handler, in the middle of one.
        if thread != me:
            lock.acquire()


def _after_in_child() -> None:
    while _open:
        with suppress(OSError):  # what a signal handler's fork came in the middle of
            os.close(_open.pop())
    _busy.clear()
    _entrance.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_entrance.release, after_in_child=_after_in_child
)
