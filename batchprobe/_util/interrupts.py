"""Ctrl-C at a moment that suits: noted at once, raised when nothing is half-done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Interrupt", "deferred_interrupt"]


class Interrupt:
    """Whether Ctrl-C was pressed meanwhile."""

    pressed = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within this block Ctrl-C is only noted; KeyboardInterrupt is raised at its end.

    Where the program has a SIGINT handler of its own, or outside the main thread, nothing changes.
    """
    interrupt = Interrupt()

    def note(_number: int, _frame: object) -> None:
        interrupt.pressed = True

    if not _handle(note):
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupt.pressed:
        raise KeyboardInterrupt


def _handle(note: Callable[[int, object], None]) -> bool:
    """Let `note` handle SIGINT; whether it does."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:
        # Not the main thread, which is the only one that is interrupted.
        return False
    return True
