"""A live table on a terminal's stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["LiveTable"]


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
