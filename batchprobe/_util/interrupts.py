# SPDX-License-Identifier: Apache-2.0
"""Defers Ctrl-C to a moment at which nothing is half-done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Interrupt", "deferred_interrupt"]


class Interrupt:
    """Whether Ctrl-C was pressed within the block."""

    pressed = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Record Ctrl-C within the block, and raise KeyboardInterrupt when the block has ended.

    Changes nothing if the program handles SIGINT itself, or outside the main thread.
    """
    interrupt = Interrupt()

    def record(_number: int, _frame: object) -> None:
        interrupt.pressed = True

    if not _install(record):
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupt.pressed:
        raise KeyboardInterrupt


def _install(handler: Callable[[int, object], None]) -> bool:
    """Install a SIGINT handler in place of Python's default one; False if that is not in place."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:
        # Only the main thread may set handlers, and only it is interrupted.
        return False
    return True
