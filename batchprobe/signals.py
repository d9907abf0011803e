"""SIGINT, SIGTERM and SIGHUP for the command: the first stops it, none abandons its probes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["Stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Set by the first signal; later ones are answered with `busy`'s words, if there are any."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.number = 0
        self.busy: Callable[[], str] = str
        for number in _SIGNALS:
            # Who starts us with nohup means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._event.is_set() and (words := self.busy()):
            # Not print: the main thread may be inside it.
            os.write(2, f"batchprobe: {words}\n".encode())
        self.number = self.number or number
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal; whether one came."""
        return self._event.wait(seconds)

    def set(self) -> None:
        """Stop without a signal."""
        self._event.set()
