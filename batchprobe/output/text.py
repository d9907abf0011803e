# SPDX-License-Identifier: Apache-2.0
"""Text for people: tables on the output, the summary on stderr."""

from __future__ import annotations

from collections.abc import Mapping

from batchprobe.actions.base import Action
from batchprobe.functions.targets import Reason, Resolution
from batchprobe.output.base import Sink, Summary
from batchprobe.output.stderr import say, say_skipped
from batchprobe.probe import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from batchprobe.output.base import Values

__all__ = ["TextSink", "by_text"]


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
        self._out.flush()

    def final(self, values: Values) -> None:
        self.table(values)

    def end(self, summary: Summary) -> None:
        for line in _summary(summary):
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
        say(f"{len(found.targets)} functions, {len(found.skipped)} skipped{omitted}")

    def _rows(self, values: Values) -> list[str]:
        columns = self._action.columns
        rank = columns[0].cell
        called = sorted(
            ((probe.label, value) for probe, value in values.items() if value),
            key=lambda row: (-rank(row[1]), row[0]),
        )
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


def _summary(summary: Summary) -> list[str]:
    commit = summary.commit
    lost = "" if summary.lost == 0 else f", lost: {_or_unknown(summary.lost)}"
    never = sum(1 for hits in summary.hits.values() if not hits)
    lines = [
        f"{len(summary.hits)} probes ({summary.abi}, {summary.placement}) in "
        f"{summary.attach_seconds:.2f} s, {len(summary.skipped)} skipped"
        f"{_omitted(summary.omitted)}",
        f"{sum(summary.hits.values())} hits, {never} functions never called, "
        f"missed: {_or_unknown(summary.missed)}{lost}",
        f"{commit.probes} probes off in one commit ({commit.clean} clean, {commit.dirty} dirty), "
        f"barriers: {commit.barriers}; gates {commit.top_seconds * 1e3:.1f} ms, "
        f"final after {commit.barrier_seconds * 1e3:.1f} ms, "
        f"reclaimed in {commit.reclaim_seconds:.2f} s",
    ]
    if summary.pending:
        labels = ", ".join(probe.label for probe in summary.pending)
        lines.insert(1, f"module not loaded at the attach: {labels}")
    if summary.barrier_note:
        lines.append(f"grace periods were not expedited: {summary.barrier_note}")
    return lines


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
