# SPDX-License-Identifier: Apache-2.0
"""Progress of an attach or a removal, on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from batchprobe.output.stderr import drop_unwritten, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from rich.progress import Progress

__all__ = ["ProgressBar"]

_STAGES = {
    "resolve": "reading the kernel's symbols",
    "compile": "compiling the programs (bcc)",
    "attach": "attaching",
    "reclaim": "removing the probes",
}
_SECONDS_BETWEEN_LINES = 5.0
# Whatever takes less is over before it is seen, and rich is slow to import.
_DRAW_AFTER_SECONDS = 0.3


class ProgressBar:
    """A bar on a terminal; elsewhere a line every few seconds. Called as `Session` does."""

    def __init__(self) -> None:
        # Not rich's Console.is_terminal: with FORCE_COLOR set, it draws on pipes, and exits on
        # EPIPE.
        self._drawing = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._last_line = self._entered = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._drawing:
            if self._bar is None and time.monotonic() - self._entered < _DRAW_AFTER_SECONDS:
                return
            try:
                self._draw(stage, done, total)
            except (OSError, ImportError):
                # The terminal was closed, or no descriptor is left to import rich with. The attach
                # goes on.
                self._drawing = False
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(_STAGES[stage] + (f": {done} of {total}" if total > 1 else ""))

    def _draw(self, stage: str, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console  # noqa: PLC0415
            from rich.progress import (  # noqa: PLC0415
                BarColumn,
                MofNCompleteColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
            )

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        if not self._bar.tasks or self._bar.tasks[-1].description != _STAGES[stage]:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(_STAGES[stage], total=total)
        self._bar.update(self._bar.task_ids[-1], completed=done, total=total)

    def __enter__(self) -> Self:
        self._entered = time.monotonic()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal was closed
                self._bar.stop()
            self._bar = None
            drop_unwritten(sys.stderr)
