# SPDX-License-Identifier: Apache-2.0
"""`batchprobe trace -o FILE.perfetto-trace`: events on a timeline."""

from __future__ import annotations

from batchprobe.output.perfetto_trace import PerfettoWriter
from batchprobe.output.text import TextSink
from batchprobe.probe import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from batchprobe.actions.base import Action
    from batchprobe.output.base import Values

__all__ = ["TimelineSink"]


class TimelineSink(TextSink):
    """Hands events to the perfetto package. Raises UnsupportedError where that is missing."""

    def __init__(self, out: TextIO, action: Action) -> None:
        super().__init__(out, action)
        # The format is binary.
        self._writer = PerfettoWriter(out.buffer)

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        # A table is no part of the format.
        del seconds, total, delta

    def event(self, event: Event) -> None:
        fields: Any = event.fields
        outcome = {name: fields[name] for name in ("result", "error") if name in fields}
        # As conditions name an argument that is called `result`.
        arguments = {
            f"arg.{name}" if name in outcome else name: value
            for name, value in fields.get("args", {}).items()
        }
        self._writer.event(
            fields["time_ns"],
            fields["tid"],
            fields["pid"],
            fields["comm"],
            fields["cpu"],
            event.probe.label,
            {**arguments, **outcome},
            fields.get("duration_ns"),
        )

    def final(self, values: Values) -> None:
        del values
        self._writer.close()
        self._out.flush()
