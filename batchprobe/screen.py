"""The live parts: progress on a terminal's stderr, a live table on a terminal's stdout."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from batchprobe.report import tell

__all__ = ["LiveTable", "Stages"]

_STAGES = {
    "resolve": "reading the kernel's symbols",
    "compile": "compiling the programs (bcc)",
    "attach": "attaching",
    "reclaim": "removing the probes",
}
_QUIET_SECONDS = 5.0


class Stages:
    """Progress of a start or an end: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        # Not the console's word: FORCE_COLOR makes it draw on pipes, and exit where one breaks.
        self._drawing = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._drawing:
            try:
                self._draw(stage, done, total)
            except OSError:
                # The terminal was closed; what it showed goes on.
                self._drawing = False
        elif time.monotonic() - self._told > _QUIET_SECONDS:
            self._told = time.monotonic()
            tell(_STAGES[stage] + (f": {done} of {total}" if total > 1 else ""))

    def _draw(self, stage: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        if not self._bar.tasks or self._bar.tasks[-1].description != _STAGES[stage]:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(_STAGES[stage], total=total)
        self._bar.update(self._bar.task_ids[-1], completed=done, total=total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):  # likewise
                self._bar.stop()
            self._bar = None


class LiveTable:
    """The functions hit most, redrawn in place on stdout until it is left."""

    def __init__(self, *, top: int | None) -> None:
        self._console = Console(file=sys.stdout)
        self._top = top
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def update(self, seconds: float, total: Mapping[str, int], delta: Mapping[str, int]) -> None:
        """Show all hits so far, and those since the last update."""
        rows = self._top or max(self._console.height - 5, 1)
        table = Table(box=None, title=f"{seconds:.0f} s, Ctrl-C stops", title_justify="left")
        table.add_column("HITS", justify="right")
        table.add_column("NOW", justify="right")
        table.add_column("FUNCTION")
        busiest = sorted(total, key=lambda label: (-total[label], label))[:rows]
        for label in busiest:
            if total[label]:
                # Text: a symbol's brackets are no markup.
                table.add_row(str(total[label]), str(delta.get(label, 0) or ""), Text(label))
        self._live.update(table, refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()
