# SPDX-License-Identifier: Apache-2.0
"""Text for people: tables on the output, the summary on stderr."""

from __future__ import annotations

from collections.abc import Mapping

from batchprobe._util.counted import counted
from batchprobe.actions.base import Action
from batchprobe.functions.targets import Reason, Resolution
from batchprobe.output.base import Sink, Summary
from batchprobe.output.stderr import say, say_skipped
from batchprobe.probe import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from batchprobe.output.base import Values

__all__ = ["TextSink", "by_text"]

_WHY_MISSED = "hits while their CPU was in another probe; the kernel skips those"
_MOST_MISSED = 3
_MOST_DETAILED = 5


class TextSink(Sink):
    """Plain tables, largest values first. Probes without hits are only counted, in the summary."""

    def __init__(self, out: TextIO, action: Action, *, top: int | None = None) -> None:
        """`top` limits the rows of a table."""
        self._out = out
        self._action = action
        self._top = top

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        self._out.write(f"after {seconds:.1f} s\n")
        self.table(delta)

    def event(self, event: Event) -> None:
        fields = " ".join(f"{name}={value}" for name, value in event.fields.items())
        self._out.write(f"{event.probe.label}  {fields}\n")

    def events_over(self) -> None:
        self._out.flush()

    def final(self, values: Values) -> None:
        self.table(values)
        for label, value in self._ranked(values)[: self._top or _MOST_DETAILED]:
            if lines := self._action.details(value):
                self._out.write("\n".join([label, *lines]) + "\n\n")
        self._out.flush()

    def end(self, summary: Summary) -> None:
        # Where nothing was attached, the reason is all there is to say: the command's error.
        if summary.hits:
            for line in [*_summary(summary, self._action), *self._action.notes()]:
                say(line)

    def table(self, values: Values) -> None:
        """One block."""
        self._out.write("\n".join(self._rows(values)) + "\n\n")
        self._out.flush()

    def resolution(self, found: Resolution) -> None:
        for target in found.targets:
            at = "when its module loads" if target.address is None else f"{target.address:#x}"
            self._out.write(f"{at:>18}  {target.label}\n")
        self._out.flush()
        say_skipped(found.skipped, most=None)
        omitted = _omitted(found.omitted)
        pending = sum(1 for target in found.targets if target.pending)
        functions = counted(len(found.targets) - pending, "function")
        waiting = f", {pending} of modules that are not loaded" if pending else ""
        say(f"{functions}{waiting}, {len(found.skipped)} skipped{omitted}")

    def _ranked(self, values: Values) -> list[tuple[str, Any]]:
        """Labels and values of those that have some, largest first."""
        rank, rows = self._action.rank, self._action.rows
        return sorted(
            ((probe.label, row) for probe, value in values.items() if value for row in rows(value)),
            key=lambda row: (-rank(row[1]), row[0]),
        )

    def _rows(self, values: Values) -> list[str]:
        columns = self._action.columns
        called = self._ranked(values)
        shown = called[: self._top]
        cells = [
            [column.title, *(str(column.cell(value)) for _, value in shown)] for column in columns
        ]
        widths = [max(map(len, column)) for column in cells]
        labels = ["FUNCTION", *(label for label, _ in shown)]
        rows = [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            for row in zip(*cells, strict=True)
        ]
        lines = [f"{row}  {label}" for row, label in zip(rows, labels, strict=True)]
        if len(called) > len(shown):
            lines.append(f"{'':>{len(rows[0])}}  … {len(called) - len(shown)} more")
        return lines


def _summary(summary: Summary, action: Action) -> list[str]:
    commit = summary.commit
    lost = f", lost: {_or_unknown(summary.lost)}"
    if (unfinished := _unfinished(summary, action)) is not None:
        lost += f", unfinished: {unfinished}"
    never = list(summary.hits.values()).count(0)
    lines = [
        f"{counted(len(summary.hits), 'probe')} ({summary.abi}, {summary.placement}) attached in "
        f"{summary.attach_seconds:.2f} s, {len(summary.skipped)} skipped"
        f"{_omitted(summary.omitted)}",
        f"{counted(sum(summary.hits.values()), 'hit')}, "
        f"{counted(never, 'function')} never called, missed: {_missed(summary)}{lost}, "
        f"not attached: {len(summary.skipped)}",
        f"{counted(commit.probes, 'probe')} off with {counted(commit.barriers, 'barrier')}: "
        f"counting stopped in {commit.top_seconds * 1e3:.1f} ms, "
        f"counts final {commit.barrier_seconds * 1e3:.1f} ms later, "
        + (
            "removal goes on"
            if commit.handed_over
            else f"probes removed in {commit.reclaim_seconds:.2f} s"
        ),
    ]
    if summary.pending:
        labels = ", ".join(probe.label for probe in summary.pending)
        lines.insert(1, f"module not loaded at the attach: {labels}")
    if summary.barrier_note:
        lines.append(f"grace periods were not expedited: {summary.barrier_note}")
    return lines


def _unfinished(summary: Summary, action: Action) -> int | None:
    """The sum of all; None if there are no values, or hits have no end."""
    if not summary.values:
        return None
    unfinished = 0
    for value in summary.values.values():
        if (one := action.unfinished(value)) is None:
            return None
        unfinished += one
    return unfinished


def _missed(summary: Summary) -> str:
    if summary.missed is None:
        return "unknown (the kernel does not count them here)"
    if not summary.missed:
        return "0"
    labels = [probe.label for probe in summary.missed_in[:_MOST_MISSED]]
    where = f"; most of them in {', '.join(labels)}" if labels else ""
    return f"{summary.missed} ({_WHY_MISSED}{where})"


def _or_unknown(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _omitted(omitted: Mapping[Reason, int]) -> str:
    if not omitted:
        return ""
    counts = ", ".join(f"{count} {text}" for text, count in by_text(omitted).items())
    return f"; patterns left out {counts}"


def by_text(counts: Mapping[Reason, int]) -> dict[str, int]:
    """Counts by the text of their reason."""
    return {reason.value: count for reason, count in counts.items()}
