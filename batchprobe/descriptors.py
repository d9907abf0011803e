"""The file descriptors that hold kernel objects, and what a fork does about them.

A forked child would keep its parent's probes alive: there they are closed. Between fork and exec
it does so for a moment all the same, for close-on-exec comes only then.
"""

from __future__ import annotations

import contextlib
import os
import threading

from batchprobe._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["close", "open_noted"]

_open: set[int] = set()
# Threads that are opening or closing one: os.fork() waits for them, or the child would inherit what
# is not noted yet, or not any more.
_busy: list[int] = []
_changed = threading.Condition(threading.RLock())


@contextlib.contextmanager
def _no_fork() -> Iterator[None]:
    me = threading.get_ident()
    with _changed:
        _busy.append(me)
    try:
        yield
    finally:
        with _changed:
            _busy.remove(me)
            _changed.notify_all()


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
    me = threading.get_ident()
    _changed.acquire()
    # Not for this thread: it forks in a signal handler, in the middle of one.
    while any(thread != me for thread in _busy):
        _changed.wait()


def _after_in_child() -> None:
    while _open:
        with contextlib.suppress(OSError):  # what a signal handler's fork came in the middle of
            os.close(_open.pop())
    _busy.clear()
    _changed.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_changed.release, after_in_child=_after_in_child
)
