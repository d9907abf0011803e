"""What is to be measured: the words that host and guest share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

EVERYTHING = 1_000_000
"""As many functions as there are."""

CALLS = "calls"
"""Attach and detach as a program does through the libraries."""
COMMAND = "command"
"""The tools as a person starts them, from exec to exit."""
HIT = "hit"
"""What one hit costs; the count is that of CPUs that are hit at once."""

NO_TIME = "no time left"
"""Why a tool was left out of a measurement that is to be made again."""

BCC = "bcc"
LINK = "link floor"
EVENT_FLOOR = "event floor"
FUNCCOUNT = "funccount"
BPFTRACE = "bpftrace"
BATCHPROBE = "batchprobe"
"""Alone: what it chooses by itself. Else an ABI follows, and for hits a placement."""
FIRST_START = "batchprobe, first start"
"""The same without what it keeps of the kernel's symbols from one start to the next."""

UNOPTIMIZED = "unoptimized"
"""Behind a placement: without the kernel's jump in place of the breakpoint."""


@dataclass(frozen=True)
class Job:
    """One measurement of several tools, which take turns."""

    kind: str
    count: int
    tools: tuple[str, ...]
    rounds: int
    # What one tool may take in all its rounds; less rounds, or none, if it is too slow.
    seconds: float
    # What must remain of the time for those after it.
    leave: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
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
