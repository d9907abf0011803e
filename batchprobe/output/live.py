# SPDX-License-Identifier: Apache-2.0
"""A live table on a terminal, followed by the plain one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from batchprobe._util.counted import counted
from batchprobe.actions.base import Action
from batchprobe.output.stderr import say
from batchprobe.output.text import TextSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from batchprobe.output.base import Values

__all__ = ["LiveSink"]

# The title, the column heads, the number of rows left out, and the line that the cursor is on.
_OTHER_LINES = 4


class LiveSink(TextSink):
    """Redraws the largest values in place on stdout while the run is inside it, as many as fit."""

    def __init__(self, action: Action, *, top: int | None = None) -> None:
        super().__init__(sys.stdout, action, top=top)
        self._console = Console(file=sys.stdout)
        self._live: Live | None = None
        # A signal may come while rich draws: then the drawing is finished first.
        self._is_drawing = False
        self._stop_wanted = False
        self._handles_stop = False

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        with self._drawing():
            if self._live is not None:
                self._live.update(self._screen(seconds, total, delta), refresh=True)

    def warn(self, line: str) -> None:
        with self._drawing():
            was_live = self._live is not None
            self._erase()
            say(line)
            if was_live:
                self._draw()

    def _screen(self, seconds: float, total: Values, delta: Values) -> Group:
        columns = self._action.columns
        rank = self._action.rank
        counts = self._action.unit == "hits"
        table = Table(box=None)
        for column in columns:
            table.add_column(column.title, justify="right", no_wrap=True)
        if counts:
            table.add_column("NOW", justify="right", no_wrap=True)
        table.add_column("FUNCTION")
        found = [(probe, value) for probe, value in total.items() if value]
        called = [(probe, row) for probe, value in found for row in self._action.rows(value)]
        called.sort(key=lambda row: (-rank(row[1]), row[0].label))
        fit = max(self._console.height - _OTHER_LINES, 1)
        shown = called[: min(self._top or fit, fit)]
        for probe, value in shown:
            now = delta.get(probe)
            table.add_row(
                *(str(column.cell(value)) for column in columns),
                *([str(rank(now)) if now else ""] if counts else []),
                _line(probe.label),
            )
        title = (
            f"{seconds:.0f} s: {counted(len(total), 'probe')}, {len(found)} with "
            f"{self._sum(total)}; Ctrl-C stops"
        )
        hidden = len(called) - len(shown)
        return Group(_line(title), table, *([_line(f"… {hidden} more")] if hidden else []))

    def _sum(self, total: Values) -> str:
        """How often the functions were called, if the action says that."""
        if self._action.unit != "hits":
            return self._action.called
        return counted(sum(total.values()), "hit")

    # -- the terminal ------------------------------------------------------------------------

    def _draw(self) -> None:
        # A new one each time, because one that was stopped lets tables grow beyond the screen.
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._live.start()

    def _erase(self) -> None:
        """Take the table off the screen, and show the cursor."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        self._is_drawing = True
        try:
            yield
        finally:
            self._is_drawing = False
        if self._stop_wanted:
            self._stop_now()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: leave the terminal as a shell expects it."""
        self._stop_wanted = True
        if not self._is_drawing:
            # An error raised here would come out anywhere. The next drawing meets it again.
            with suppress(OSError):
                self._stop_now()

    def _stop_now(self) -> None:
        self._stop_wanted = False
        self._erase()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # Returns when the process is continued.
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._on_stop)
        self._draw()

    def __enter__(self) -> Self:
        # A shell without job control ignores it.
        self._handles_stop = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        with self._drawing():
            self._draw()
        if self._handles_stop:
            signal.signal(signal.SIGTSTP, self._on_stop)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._handles_stop:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._erase()


def _line(text: str) -> Text:
    """One line, cut off at the edge of the screen. No markup, which rich would read into a symbol's
    brackets.
    """
    return Text(text, no_wrap=True, overflow="ellipsis")
