# SPDX-License-Identifier: Apache-2.0
"""JSON lines for programs: one object a line, each with `type` and `schema`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from batchprobe.actions.base import Action
from batchprobe.functions.targets import Resolution, Skipped, Target
from batchprobe.output.base import Sink, Summary
from batchprobe.output.text import by_text
from batchprobe.probe import Event, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from batchprobe.output.base import Values

__all__ = ["SCHEMA", "JsonSink", "record"]

SCHEMA = 1
# json.dumps() would make an encoder for each record.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonSink(Sink):
    """Writes one record at each call. A value stands under the action's unit."""

    def __init__(self, out: TextIO, action: Action) -> None:
        self._out = out
        self._action = action

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        self._write("counts", {"seconds": round(seconds, 3), **self._values(delta)})

    def event(self, event: Event) -> None:
        self._out.write(record("event", {**event.fields, "function": event.probe.label}))

    def events_over(self) -> None:
        self._out.flush()

    def final(self, values: Values) -> None:
        self._write("final", self._values(values))

    def end(self, summary: Summary) -> None:
        # The keys of this schema are older than the names in the code.
        commit = dict(vars(summary.commit))
        failed = commit.pop("failed")
        commit["left"] = len(failed)
        commit["left_behind"] = [failure.what for failure in failed]
        self._write(
            "summary",
            {
                "kernel": summary.kernel,
                "arch": summary.arch,
                "abi": summary.abi,
                "placement": summary.placement,
                "requested": len(summary.hits) + len(summary.skipped),
                "attached": len(summary.hits),
                "skipped": [_skipped(skip) for skip in summary.skipped],
                "left_out": by_text(summary.omitted),
                "pending": [probe.label for probe in summary.pending],
                **self._values(summary.values),
                "hits": _by_label(summary.hits),
                "missed": summary.missed,
                **_if_any("missed_in", [probe.label for probe in summary.missed_in]),
                **({} if summary.lost == 0 else {"lost": summary.lost}),
                "attach_seconds": summary.attach_seconds,
                "commit": commit,
            },
        )

    def resolution(self, found: Resolution) -> None:
        for target in found.targets:
            self._write("function", _target(target))
        for skip in found.skipped:
            self._write("skipped", _skipped(skip))
        self._write(
            "summary",
            {
                "functions": len(found.targets),
                "skipped": len(found.skipped),
                "left_out": by_text(found.omitted),
            },
        )

    def _values(self, values: Values) -> dict[str, object]:
        to_json = self._action.to_json
        return {self._action.unit: {p.label: to_json(value) for p, value in values.items()}}

    def _write(self, kind: str, content: Mapping[str, object]) -> None:
        self._out.write(record(kind, content))
        self._out.flush()


def record(kind: str, content: Mapping[str, object]) -> str:
    """One line: an object of this `type`."""
    return _encode({"type": kind, "schema": SCHEMA, **content}) + "\n"


def _by_label(hits: Mapping[Probe, int]) -> dict[str, int]:
    return {probe.label: count for probe, count in hits.items()}


def _if_any(key: str, values: list[str]) -> dict[str, list[str]]:
    return {key: values} if values else {}


def _skipped(skip: Skipped) -> dict[str, object]:
    return {
        "entry": skip.entry,
        "file": skip.source.file,
        "line": skip.source.line,
        "reason": skip.message,
        **({"function": skip.function} if skip.function else {}),
    }


def _target(target: Target) -> dict[str, object]:
    return {
        "label": target.label,
        "name": target.name,
        "module": target.module,
        "address": None if target.address is None else f"{target.address:#x}",
        "offset": target.offset,
        "return": target.is_return,
        "entry": target.spec.text,
        "file": target.spec.source.file,
        "line": target.spec.source.line,
    }
