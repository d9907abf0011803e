"""How far a start or an end has come, told on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from batchprobe.output.text import forget_unwritten, tell

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Stages"]

_STAGES = {
    "resolve": "reading the kernel's symbols",
    "compile": "compiling the programs (bcc)",
    "attach": "attaching",
    "reclaim": "removing the probes",
}
_QUIET_SECONDS = 5.0
# What takes less is over before it is seen, and rich takes long to import.
_DRAWN_AFTER_SECONDS = 0.3


class Stages:
    """Progress of a start or an end: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        # Not rich's word: FORCE_COLOR makes it draw on pipes, and exit where one breaks.
        self._drawing = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._told = self._entered = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._drawing:
            if self._bar is None and time.monotonic() - self._entered < _DRAWN_AFTER_SECONDS:
                return
            try:
                self._draw(stage, done, total)
            except (OSError, ImportError):
                # The terminal was closed, or there are no descriptors to import with; what it
                # shows goes on.
                self._drawing = False
        elif time.monotonic() - self._told > _QUIET_SECONDS:
            self._told = time.monotonic()
            tell(_STAGES[stage] + (f": {done} of {total}" if total > 1 else ""))

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
            with suppress(OSError):  # likewise
                self._bar.stop()
            self._bar = None
            forget_unwritten(sys.stderr)
