"""SIGINT, SIGTERM and SIGHUP for the command: the first stops it, none abandons its probes."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

__all__ = ["Stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Set by the first signal; later ones are answered with `busy`'s words, if there are any.

    Not a threading.Event: its set() takes a lock, which the interrupted main thread may hold.
    """

    def __init__(self) -> None:
        self.number = 0
        self.busy: Callable[[], str] = str
        self._reader, self._writer = os.pipe()
        for number in _SIGNALS:
            # Who starts us with nohup means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            if words := self.busy():
                # A closed terminal sends SIGHUP more than once, and takes no words: raised here,
                # that would interrupt the clean-up.
                with suppress(OSError):
                    # Not print: the main thread may be inside it.
                    os.write(2, f"batchprobe: {words}\n".encode())
            return
        self.number = number
        # Once only, so the pipe is never full.
        os.write(self._writer, b".")

    def over(self) -> None:
        """All is done: from here on a signal is too late to change how the process ends.

        The interpreter's end would restore what ends it (PyOS_FiniInterrupts), but not this.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) == self._note:
                signal.signal(number, signal.SIG_IGN)

    def is_set(self) -> bool:
        return self.number != 0

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal; whether one came."""
        if not self.number:
            select.select([self._reader], [], [], seconds)
        return self.is_set()
