# SPDX-License-Identifier: Apache-2.0
"""Raw results: a line of JSON per measurement."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _bench.jobs import NO_TIME, Job


@dataclass(frozen=True, order=True)
class Key:
    """What was measured, and where."""

    kernel: str
    kind: str
    count: int


@dataclass(frozen=True)
class Result:
    """One measurement: the values of each round of each tool."""

    key: Key
    # The actual number of functions, and their glob.
    functions: int
    glob: str
    # Seconds of an ordinary grace period.
    grace: float
    versions: Mapping[str, str]
    # The host, and how many other processes wanted its CPUs.
    machine: Mapping[str, str]
    busy: float
    samples: Mapping[str, Sequence[Mapping[str, float]]]
    left_out: Mapping[str, str] = field(default_factory=dict)
    # batchprobe's commit; empty in old results.
    commit: str = ""

    def values(self, tool: str, name: str) -> list[float]:
        """The value in each round."""
        return [sample[name] for sample in self.samples.get(tool, ()) if name in sample]

    def median(self, tool: str, name: str) -> float | None:
        """Its median, None if there is no such value."""
        values = self.values(tool, name)
        return statistics.median(values) if values else None


Results = Mapping[Key, Result]


def parse(lines: Iterable[str]) -> dict[Key, Result]:
    """The last result of each key; an incomplete one never replaces a complete one."""
    found: dict[Key, Result] = {}
    complete: set[Key] = set()
    for line in lines:
        if not line.endswith("\n"):
            # The writer was killed.
            continue
        row: dict[str, Any] = json.loads(line)
        key = Key(row.pop("kernel"), row.pop("kind"), row.pop("count"))
        is_complete = row.pop("complete")
        if is_complete:
            complete.add(key)
        elif key in complete:
            continue
        found[key] = Result(key=key, **row)
    return found


def read(file: Path) -> dict[Key, Result]:
    """The results in a file, none if there is no such file."""
    if not file.exists():
        return {}
    with file.open() as lines:
        return parse(lines)


def is_lacking(job: Job, kernel: str, found: Results) -> bool:
    """Whether a job is still to be done: some tool has neither samples nor a reason."""
    result = found.get(Key(kernel, job.kind, job.count))
    if result is None:
        return True
    explained = {tool for tool, why in result.left_out.items() if why != NO_TIME}
    return any(tool not in result.samples and tool not in explained for tool in job.tools)
