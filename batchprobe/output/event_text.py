# SPDX-License-Identifier: Apache-2.0
"""Events as lines for people: one for each hit or call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

from batchprobe.actions.event_records import Text
from batchprobe.actions.latency import shown_time
from batchprobe.output.text import TextSink
from batchprobe.probe import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from batchprobe.output.base import Values

__all__ = ["EventTextSink", "event_line"]

_TITLE = f"{'TIME':<15} CPU {'PID':>7} {'COMM':<15} CALL\n"
# Those of 128 and more begin escape sequences too.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS |= {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r", ord("\\"): "\\\\"}
_QUOTED = {**_CONTROLS, ord('"'): '\\"'}


class EventTextSink(TextSink):
    """Writes events as they come, and no table: the summary says how many there were."""

    _has_title = False

    def event(self, event: Event) -> None:
        if not self._has_title:
            self._has_title = True
            self._out.write(_TITLE)
        self._out.write(event_line(event))

    def events_over(self) -> None:
        self._out.flush()

    def final(self, values: Values) -> None:
        del values
        self._out.flush()


def event_line(event: Event) -> str:
    """`12:34:56.123456   1    1234 curl  tcp_sendmsg(sk=0xffff…, size=517) = 517 <12.3 us>`."""
    fields: Mapping[str, Any] = event.fields
    seconds, micros = divmod(round(fields["time"] * 1e6), 1_000_000)
    arguments = ", ".join(f"{name}={_shown(v)}" for name, v in fields.get("args", {}).items())
    line = (
        f"{_clock(seconds)}.{micros:06d} {fields['cpu']:>3} {fields['tid']:>7} "
        f"{fields['comm'].translate(_CONTROLS):<15} {event.probe.label}({arguments})"
    )
    if "result" in fields:
        error = fields.get("error")
        line += f" = {'-' + error if error else _shown(fields['result'])}"
    if "duration_ns" in fields:
        line += f" <{shown_time(fields['duration_ns'])}>"
    return line + "\n"


@lru_cache(maxsize=16)
def _clock(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _shown(value: object) -> str:
    if value is None:
        return "?"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Text):
        return f'"{value.translate(_QUOTED)}"'
    if isinstance(value, str):
        return "NULL" if value == "0x0" else value.translate(_CONTROLS)
    return str(value)
