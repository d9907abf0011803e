"""What programs read: JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TextIO

from batchprobe.functions.targets import Resolution, Skipped, Target
from batchprobe.output.text import Summary, by_words

__all__ = ["SCHEMA", "JsonReport"]

SCHEMA = 1


class JsonReport:
    """One object a line, each with `type` and `schema`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def counts(self, seconds: float, hits: Mapping[str, int]) -> None:
        self._line("counts", {"seconds": round(seconds, 3), "hits": dict(hits)})

    def final(self, hits: Mapping[str, int]) -> None:
        self._line("final", {"hits": dict(hits)})

    def end(self, summary: Summary) -> None:
        commit = summary.commit._asdict()
        commit["left"] = len(summary.commit.left)
        commit["left_behind"] = [left.what for left in summary.commit.left]
        self._line(
            "summary",
            {
                "kernel": summary.kernel,
                "arch": summary.arch,
                "abi": summary.abi,
                "placement": summary.placement,
                "requested": len(summary.hits) + len(summary.skipped),
                "attached": len(summary.hits),
                "skipped": [_skipped_json(skip) for skip in summary.skipped],
                "left_out": by_words(summary.left_out),
                "pending": list(summary.pending),
                "hits": dict(summary.hits),
                "missed": summary.missed,
                "attach_seconds": summary.attach_seconds,
                "commit": commit,
            },
        )

    def resolution(self, found: Resolution) -> None:
        """What `functions` found."""
        for target in found.targets:
            self._line("function", _target_json(target))
        for skip in found.skipped:
            self._line("skipped", _skipped_json(skip))
        self._line(
            "summary",
            {
                "functions": len(found.targets),
                "skipped": len(found.skipped),
                "left_out": by_words(found.left_out),
            },
        )

    def record(self, kind: str, content: Mapping[str, object]) -> None:
        """Any other object."""
        self._line(kind, content)

    def _line(self, kind: str, content: Mapping[str, object]) -> None:
        record = {"type": kind, "schema": SCHEMA, **content}
        self._out.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._out.flush()


def _skipped_json(skip: Skipped) -> dict[str, object]:
    return {
        "entry": skip.entry,
        "file": skip.source.file,
        "line": skip.source.line,
        "reason": skip.message,
    }


def _target_json(target: Target) -> dict[str, object]:
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
