# SPDX-License-Identifier: Apache-2.0
"""Progress of an attach or a removal, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread

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
# How often the bar is redrawn, and `meanwhile` called.
_TICK_SECONDS = 0.2
_FIRST_LINE_SECONDS = 1.0
_BETWEEN_LINES_SECONDS = 5.0
_MOST_BETWEEN_LINES_SECONDS = 60.0
_BAR_CELLS = 20
# rich's own look like grey where there are only 16.
_COLOUR = "green"


class ProgressBar:
    """A bar on a terminal, elsewhere a line now and then, while the block lasts. Called as
    `Session` does.

    A thread writes, because a single call into the kernel may take seconds. It calls `meanwhile`
    some times a second.
    """

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._meanwhile = meanwhile
        self._is_terminal = sys.stderr.isatty()
        self._now = ("resolve", 0, 1)
        self._is_inside = False
        # Of this block, once its thread was started.
        self._over: Event | None = None
        # Held by the thread while it writes, or may begin to.
        self._writing = Lock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._now = stage, done, total
        # Not before, because most removals report nothing.
        if self._is_inside and self._over is None:
            self._over = Event()
            # Without a thread there is no progress to see; the attach goes on.
            with suppress(RuntimeError):
                Thread(target=self._write, args=(self._over,), daemon=True).start()

    def _write(self, over: Event) -> None:
        if not self._is_terminal:
            with self._writing:
                self._print(over)
        elif not over.wait(_DRAW_AFTER_SECONDS):
            # The terminal was closed, or no descriptor is left to import with.
            with suppress(OSError, ImportError):
                self._draw(over)

    def _print(self, over: Event) -> None:
        began = time.monotonic()
        due = began + _FIRST_LINE_SECONDS
        while not over.wait(_TICK_SECONDS):
            self._meanwhile()
            now = time.monotonic()
            if now < due:
                continue
            stage, done, total = self._now
            say(_STAGES[stage] + (f": {done} of {total}" if total > 1 else ""))
            # The longer it takes, the rarer.
            due = now + min(max(_BETWEEN_LINES_SECONDS, now - began), _MOST_BETWEEN_LINES_SECONDS)

    def _draw(self, over: Event) -> None:
        # Here, because no quick run needs it.
        from rich.console import Console  # noqa: PLC0415
        from rich.control import Control  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
        from rich.segment import ControlType  # noqa: PLC0415

        # A stream of its own: what a closed terminal leaves in it is not written at exit.
        with self._writing, open(2, "w", closefd=False) as screen:
            console = Console(file=screen)
            if not console.is_interactive:
                # TERM=dumb
                self._print(over)
                return
            if over.is_set():
                return
            progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(
                    _BAR_CELLS,
                    complete_style=_COLOUR,
                    finished_style=_COLOUR,
                    pulse_style=_COLOUR,
                ),
                TextColumn("{task.fields[numbers]}"),
                TextColumn("({task.elapsed:.0f} s)"),
                console=console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            task = progress.add_task("", total=None)

            def update() -> None:
                stage, done, total = self._now
                progress.update(
                    task,
                    description=_STAGES[stage],
                    completed=done,
                    total=total if total > 1 else None,
                    numbers=f"{done} of {total}" if total > 1 else "",
                )

            update()
            with progress:
                # A shell would not show it again after Ctrl-Z.
                console.show_cursor()
                while True:
                    with console:
                        progress.refresh()
                        # In front, so that a message overwrites the bar.
                        console.control(Control(ControlType.CARRIAGE_RETURN))
                    if over.wait(_TICK_SECONDS):
                        return
                    self._meanwhile()
                    update()

    def __enter__(self) -> Self:
        self._is_inside = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_inside = False
        over, self._over = self._over, None
        if over is not None:
            over.set()
            # Until the bar is erased. No join: a thread that still imports rich draws nothing.
            with self._writing:
                pass
