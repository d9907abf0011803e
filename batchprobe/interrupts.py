"""Ctrl-C at a moment that suits: noted at once, raised when nothing is half-done."""

from __future__ import annotations

import contextlib
import signal
import threading

from batchprobe._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Interrupt", "deferred_interrupt"]


class Interrupt:
    """Whether Ctrl-C was pressed meanwhile."""

    pressed = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within this block Ctrl-C is only noted; KeyboardInterrupt is raised at its end.

    Where the program has a SIGINT handler of its own, or outside the main thread, nothing changes.
    """
    interrupt = Interrupt()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield interrupt
        return

    def note(_number: int, _frame: object) -> None:
        interrupt.pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupt.pressed:
        raise KeyboardInterrupt
