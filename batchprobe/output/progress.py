# SPDX-License-Identifier: Apache-2.0
"""Progress of an attach or a removal, on stderr."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from threading import Event, Thread

from batchprobe.output.stderr import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["ProgressBar"]

_STAGES = {
    "resolve": "reading the kernel's symbols",
    "compile": "compiling the programs (bcc)",
    "attach": "attaching",
    "reclaim": "removing the probes",
}
# Whatever takes less is over before it is seen.
_DRAW_AFTER_SECONDS = 0.3
_REDRAW_SECONDS = 0.2
_FIRST_LINE_SECONDS = 1.0
_BETWEEN_LINES_SECONDS = 5.0
_MOST_BETWEEN_LINES_SECONDS = 60.0
_BAR_CELLS = 20
_ERASE = "\r\x1b[K"


class ProgressBar:
    """A bar on a terminal, elsewhere a line now and then, while the block lasts. Called as
    `Session` does.

    A thread writes, because a single call into the kernel may take seconds.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._now: tuple[str, int, int] | None = None
        self._over = Event()
        self._over.set()
        self._writer: Thread | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._now = stage, done, total
        # Not before, because most removals report nothing.
        if self._writer is None and not self._over.is_set():
            self._writer = Thread(target=self._write, daemon=True)
            # Without a thread there is no progress to see; the attach goes on.
            with suppress(RuntimeError):
                self._writer.start()

    def _write(self) -> None:
        began = time.monotonic()
        if self._is_terminal:
            with suppress(OSError):  # the terminal was closed
                self._draw(began)
        else:
            self._print(began)

    def _print(self, began: float) -> None:
        wait = _FIRST_LINE_SECONDS
        while not self._over.wait(wait):
            stage, done, total = self._now or ("resolve", 0, 1)
            say(_STAGES[stage] + (f": {done} of {total}" if total > 1 else ""))
            # The longer it takes, the rarer.
            seconds = time.monotonic() - began
            wait = min(max(_BETWEEN_LINES_SECONDS, seconds), _MOST_BETWEEN_LINES_SECONDS)

    def _draw(self, began: float) -> None:
        if self._over.wait(_DRAW_AFTER_SECONDS):
            return
        while True:
            bar = self._bar(time.monotonic() - began)[: os.get_terminal_size(2).columns - 1]
            # The cursor stays in front, so that a message overwrites the bar.
            os.write(2, f"{_ERASE}{bar}\r".encode())
            if self._over.wait(_REDRAW_SECONDS):
                os.write(2, _ERASE.encode())
                return

    def _bar(self, seconds: float) -> str:
        stage, done, total = self._now or ("resolve", 0, 1)
        if total <= 1:
            return f"{_STAGES[stage]} ({seconds:.0f} s)"
        filled = _BAR_CELLS * done // total
        bar = "#" * filled + "-" * (_BAR_CELLS - filled)
        return f"{_STAGES[stage]} {bar} {done} of {total} ({seconds:.0f} s)"

    def __enter__(self) -> Self:
        self._over.clear()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        writer, self._writer = self._writer, None
        if writer is not None and writer.ident is not None:
            writer.join()
