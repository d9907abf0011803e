# SPDX-License-Identifier: Apache-2.0
"""A live table on a terminal, followed by the plain one."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from batchprobe.actions.base import Action
from batchprobe.output.text import TextSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from batchprobe.output.base import Values

__all__ = ["LiveSink"]


class LiveSink(TextSink):
    """Redraws the largest values in place on stdout while the run is inside it."""

    def __init__(self, action: Action, *, top: int | None = None) -> None:
        super().__init__(sys.stdout, action, top=top)
        self._console = Console(file=sys.stdout)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        rows = self._top or max(self._console.height - 5, 1)
        columns = self._action.columns
        rank = columns[0].cell
        table = Table(box=None, title=f"{seconds:.0f} s, Ctrl-C stops", title_justify="left")
        for column in columns:
            table.add_column(column.title, justify="right")
        table.add_column("NOW", justify="right")
        table.add_column("FUNCTION")
        called = [(probe, value) for probe, value in total.items() if value]
        called.sort(key=lambda row: (-rank(row[1]), row[0].label))
        for probe, value in called[:rows]:
            now = delta.get(probe)
            table.add_row(
                *(str(column.cell(value)) for column in columns),
                str(rank(now)) if now else "",
                # Text, because rich would read markup into a symbol's brackets.
                Text(probe.label),
            )
        self._live.update(table, refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()
