# SPDX-License-Identifier: Apache-2.0
"""What to measure: the names that host and guest share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

EVERYTHING = 1_000_000
"""As many functions as there are."""

CALLS = "calls"
"""Attach and detach as a program does through the libraries."""
COMMAND = "command"
"""The tools as commands, from exec to exit."""
TOOLS = "tools"
"""A bcc tool with and without batchprobe, from exec to exit."""
HIT = "hit"
"""The cost of a hit; the count is the number of CPUs that hit at once."""

NO_TIME = "no time left"
"""Why a tool was left out of a measurement that a later run repeats."""

BCC = "bcc"
LINK = "link floor"
EVENT_FLOOR = "event floor"
FUNCCOUNT = "funccount"
BATCHED = "funccount, batched"
"""Unchanged, by `batchprobe run`."""
OWN = "own program"
"""bcc's program through a session, with batchprobe's choices."""
LATENCY = "latency"
"""The time of each call, instead of a count."""
FUNCLATENCY = "funclatency"
TRACE = "trace"
"""An event a call, with its arguments."""
PRINTF = "bpftrace, arguments"
"""The same, printed by bpftrace."""
ACCEPTED = "accepted by a filter"
REJECTED = "rejected by a filter"
"""Of processes, by number."""
BPFTRACE = "bpftrace"
BATCHPROBE = "batchprobe"
"""With its own choices, unless an ABI follows, and for hits a placement."""
FIRST_START = "batchprobe, first start"
"""The same without the kernel's symbols, which it keeps from one start to the next."""

UNOPTIMIZED = "unoptimized"
"""After a placement: the breakpoint is not replaced by a jump."""


@dataclass(frozen=True)
class Job:
    """One measurement of several tools, which take turns."""

    kind: str
    count: int
    tools: tuple[str, ...]
    rounds: int
    # Time limit of one tool for all rounds; a slow one makes fewer, or none.
    seconds: float
    # Time to leave for the jobs after it.
    leave: float = 0.0

    @property
    def name(self) -> str:
        """The name in the output."""
        if self.kind == HIT:
            return f"{self.kind}, {self.count} CPU{'s' if self.count > 1 else ''}"
        return f"{self.kind}, {self.size}"

    @property
    def size(self) -> str:
        """How many functions."""
        if self.count >= EVERYTHING:
            return "all functions"
        return f"{self.count:,} function{'s' if self.count > 1 else ''}"


def pack(jobs: Iterable[Job]) -> str:
    """Jobs as one argument."""
    return json.dumps([asdict(job) for job in jobs])


def unpack(text: str) -> list[Job]:
    """The jobs of `pack`."""
    return [Job(**{**job, "tools": tuple(job["tools"])}) for job in json.loads(text)]
