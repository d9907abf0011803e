# SPDX-License-Identifier: Apache-2.0
"""Notes the descriptors that keep kernel objects alive, and closes them in forked children.

A link, perf event, program or map lives as long as any process has a descriptor of it, so a forked
child would keep the parent's probes armed: an at-fork hook closes the noted descriptors in it.
`subprocess` and posix_spawn(3) run no such hook; there close-on-exec closes the copies, which exist
until the exec.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, RLock, Thread, get_ident

__all__ = ["close", "close_all", "open_noted"]

# The kernel serializes most of a close: more threads gained nothing.
_CLOSERS = 32

_noted: set[int] = set()
# One held lock for each open or close in progress, with its thread. os.fork() waits for them:
# otherwise the child could inherit a descriptor that is not noted yet, or not any more.
_in_progress: dict[Lock, int] = {}
# Held to begin an open or close, and by os.fork() from before to after the fork. Reentrant because
# a signal handler may fork while its thread holds it.
_gate = RLock()


@contextmanager
def _no_fork() -> Iterator[None]:
    mine = Lock()
    mine.acquire()
    with _gate:
        _in_progress[mine] = get_ident()
    try:
        yield
    finally:
        # Not under the gate: a fork that waits for this lock holds it.
        del _in_progress[mine]
        mine.release()


def open_noted(make: Callable[[], int]) -> int:
    """Call `make`, which opens a descriptor, note that descriptor and return it."""
    with _no_fork():
        fd = make()
        _noted.add(fd)
    return fd


def close(fd: int) -> None:
    """Close a descriptor that `open_noted` returned."""
    with _no_fork():
        _noted.discard(fd)
        os.close(fd)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors, in threads if there are several, because the kernel may wait for each."""
    waiting = deque(fds)

    def close_some() -> None:
        with suppress(IndexError):  # another thread took the last one
            while waiting:
                close(waiting.popleft())

    closers = [Thread(target=close_some) for _ in range(min(_CLOSERS, len(waiting)) - 1)]
    # At the interpreter's exit no thread can be started any more.
    with suppress(RuntimeError):
        for closer in closers:
            closer.start()
    close_some()
    for closer in closers:
        if closer.ident is not None:
            closer.join()


def _before_fork() -> None:
    me = get_ident()
    _gate.acquire()
    for lock, thread in list(_in_progress.items()):
        # Skip our own: a signal handler forks in the middle of an open or close of its thread.
        if thread != me:
            lock.acquire()


def _after_in_child() -> None:
    while _noted:
        with suppress(OSError):  # the fork may have interrupted the close of this one
            os.close(_noted.pop())
    _in_progress.clear()
    _gate.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_gate.release, after_in_child=_after_in_child
)
