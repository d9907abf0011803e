# SPDX-License-Identifier: Apache-2.0
"""Which measurements a run consists of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from _bench.jobs import (
    ACCEPTED,
    BATCHED,
    BATCHPROBE,
    BCC,
    BPFTRACE,
    CALLS,
    COMMAND,
    EVENT_FLOOR,
    EVERYTHING,
    FIRST_START,
    FUNCCOUNT,
    FUNCLATENCY,
    HIT,
    LATENCY,
    LINK,
    OWN,
    PRINTF,
    REJECTED,
    TOOLS,
    TRACE,
    UNOPTIMIZED,
    Job,
)

KINDS: Final = (COMMAND, CALLS, TOOLS, HIT)
COUNTS: Final = (1, 10, 100, 1000, 10_000, EVERYTHING)
# Of a bcc tool, whose end takes 0.1 s a probe under emulation.
_TOOL_COUNTS: Final = (200, 800)
QUICK_KERNELS: Final = ("debian-12", "debian-13")
# On a slow machine; a fast one needs half of it.
QUICK_SECONDS: Final = 1200.0
# Kernels with kprobe_multi links (CONFIG_FPROBE).
_WITH_LINKS: Final = ("debian-13", "debian-sid")
# funccount takes no more, and tools that wait for each probe are too slow for more.
_ONE_BY_ONE_MOST: Final = 1000
# Slow tools are measured with this many first, and with 1,000 if there is time.
_QUICK_SLOW: Final = 200
_PATIENCE: Final = 250.0
_TOOL_PATIENCE: Final = 600.0


def full(kernel: str, kinds: Collection[str], counts: Collection[int]) -> list[Job]:
    """All measurements on a kernel, fast ones first."""
    jobs = []
    for count in sorted(counts):
        rounds = 5 if count <= 100 else 3
        if COMMAND in kinds:
            jobs.append(Job(COMMAND, count, _commands(kernel, count), rounds, _PATIENCE))
        if CALLS in kinds:
            jobs.append(Job(CALLS, count, _calls(kernel, count), rounds, _PATIENCE))
    if TOOLS in kinds:
        jobs += [Job(TOOLS, n, (BATCHED, FUNCCOUNT), 3, _TOOL_PATIENCE) for n in _TOOL_COUNTS]
    if HIT in kinds:
        hits = [Job(HIT, cpus, _hits(kernel), 5, _PATIENCE) for cpus in (1, 2)]
        jobs[2:2] = hits
    return jobs


def only(jobs: Sequence[Job], tools: Collection[str]) -> list[Job]:
    """The jobs with only these tools."""
    fewer = [replace(job, tools=tuple(t for t in job.tools if t in tools)) for job in jobs]
    return [job for job in fewer if job.tools]


def quick(kernel: str) -> list[Job]:
    """What the targets need."""
    # Four rounds of what takes a second; funccount makes fewer.
    start = Job(COMMAND, 1, (BATCHPROBE, BPFTRACE, FUNCCOUNT), 4, 25.0)
    if kernel in _WITH_LINKS:
        multi = (f"{BATCHPROBE} multi", LINK)
        return [
            start,
            Job(CALLS, _QUICK_SLOW, (*multi, BCC), 1, 60.0),
            Job(COMMAND, EVERYTHING, (BATCHPROBE, BPFTRACE), 1, 120.0, leave=45.0),
            Job(CALLS, EVERYTHING, multi, 1, 60.0, leave=10.0),
            Job(CALLS, 1000, (*multi, BCC), 2, 150.0),
        ]
    event = (f"{BATCHPROBE} event", EVENT_FLOOR)
    return [
        start,
        Job(CALLS, _QUICK_SLOW, (*event, BCC), 1, 60.0),
        Job(COMMAND, _QUICK_SLOW, (BATCHPROBE, BPFTRACE), 1, 90.0),
        Job(CALLS, 1000, (*event, BCC), 2, 150.0, leave=25.0),
        Job(COMMAND, 1000, (BATCHPROBE, BPFTRACE), 2, 170.0),
    ]


def _commands(kernel: str, count: int) -> tuple[str, ...]:
    tools = [BATCHPROBE, FIRST_START] if count == 1 else [BATCHPROBE]
    if kernel in _WITH_LINKS or count <= _ONE_BY_ONE_MOST:
        tools.append(BPFTRACE)
    if count <= _ONE_BY_ONE_MOST:
        tools.append(FUNCCOUNT)
    return tuple(tools)


def _calls(kernel: str, count: int) -> tuple[str, ...]:
    tools = [f"{BATCHPROBE} event", EVENT_FLOOR]
    if kernel in _WITH_LINKS:
        tools = [f"{BATCHPROBE} multi", LINK, *tools]
    if count <= _ONE_BY_ONE_MOST:
        tools += [f"{BATCHPROBE} perf", BCC]
    return tuple(tools)


def _hits(kernel: str) -> tuple[str, ...]:
    links = [f"{BATCHPROBE} multi", LINK] if kernel in _WITH_LINKS else []
    kinds = ("event entry", "event after", f"event after {UNOPTIMIZED}", "perf")
    events = [f"{BATCHPROBE} {kind}" for kind in kinds]
    return (
        *(*links, *events, ACCEPTED, REJECTED, LATENCY),
        *(OWN, BCC, BPFTRACE, FUNCCOUNT, FUNCLATENCY, TRACE, PRINTF),
    )
