# SPDX-License-Identifier: Apache-2.0
"""SIGINT, SIGTERM and SIGHUP for the command: the first one stops it, none abandons its probes."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

__all__ = ["Stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST_SECONDS = 86_400.0


class Stop:
    """Set by the first signal. A signal is answered with what `busy` returns, if that is not empty.

    Not a threading.Event: its set() takes a lock, which the interrupted main thread may hold.
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal that came; 0 if none did."""
        self.is_urgent = False
        """Whether the user does not want to wait any longer: Ctrl-C or SIGTERM while `busy`, or
        after the first signal.
        """
        self.busy: Callable[[], str] = str
        self._reader, self._writer = os.pipe()
        # Has an item while another thread answers for the main one. A list, because its append()
        # and pop() are atomic, and a handler may not wait for a lock.
        self._answered_elsewhere: list[bool] = []
        for number in _SIGNALS:
            # nohup(1) ignores SIGHUP on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        message = self.busy()
        # Not SIGHUP: a closed terminal sends it more than once.
        if (self.number or message) and number != signal.SIGHUP:
            self.is_urgent = True
        try:
            self._answered_elsewhere.pop()
        except IndexError:
            _say(message)
        if not self.number:
            self.number = number
            # Written once, so the pipe never blocks.
            os.write(self._writer, b".")

    def answer_pending(self) -> None:
        """Answer a signal that the main thread has not got yet, because it is inside a long call.

        Another thread calls this now and then. Python's wakeup fd would not do: the kernel leaves a
        signal to the main thread if that may take it, so no handler, in C or Python, runs before
        the call ends.
        """
        message = self.busy()
        if not message or self._answered_elsewhere:
            return
        # Only what is blocked in this thread is reported as pending.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._answered_elsewhere.append(True)
        if signal.sigpending().isdisjoint(_SIGNALS):
            with suppress(IndexError):
                self._answered_elsewhere.pop()
                return
            # The main thread got one just now, and left the answer to this thread.
        _say(message)

    def over(self) -> None:
        """Ignore signals from now on: they are too late to change how the process ends.

        The interpreter restores default handlers when it exits (PyOS_FiniInterrupts), but leaves
        ignored signals ignored.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_IGN)

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self.number != 0

    def wait(self, seconds: float | None, also: Sequence[int] = ()) -> bool:
        """Wait for a signal, for something to read from the descriptors `also`, or this long;
        returns whether a signal came.
        """
        if not self.number:
            # Not select(), which takes no descriptor above 1,023: each perf kprobe has one.
            incoming = select.poll()
            for fd in (self._reader, *also):
                incoming.register(fd, select.POLLIN)
            # More than a day would not fit, and the caller asks again.
            incoming.poll(seconds and min(seconds, _MOST_SECONDS) * 1000)
        return self.is_set()


def _say(message: str) -> None:
    if message:
        # A closed terminal sends SIGHUP more than once and cannot be written to. An error raised
        # here would interrupt the clean-up.
        with suppress(OSError):
            # Not print: the main thread may be inside it.
            os.write(2, f"batchprobe: {message}\n".encode())
