# SPDX-License-Identifier: Apache-2.0
"""In the guest: run the jobs and print a JSON object for each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import bcc

from _bench.calls import Calls, Values, grace_period
from _bench.commands import run_command
from _bench.functions import Functions
from _bench.hits import Hits
from _bench.jobs import (
    BATCHED,
    BATCHPROBE,
    BCC,
    BPFTRACE,
    CALLS,
    COMMAND,
    FUNCCOUNT,
    HIT,
    NO_TIME,
    TOOLS,
    Job,
    unpack,
)
from _bench.witness import Witness

# Seconds per probe under emulation, until measured: a run that is too slow is not begun.
_GUESSES = {
    BCC: 0.15,
    FUNCCOUNT: 0.5,
    BATCHED: 0.2,
    f"{BATCHPROBE} perf": 0.1,
    f"{BATCHPROBE} event": 0.02,
}
_BPFTRACE_ONE_BY_ONE = 0.2
_DEFAULT_GUESS = 0.001
# Time limit of a tool's first start.
_WARM_SECONDS = 120.0
_TOOL_STALL_SECONDS = 12.0
# Seconds of a run that do not depend on the number of probes.
_ONCE = 5.0
_TOO_SLOW = "left out: it would take about"


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Pace:
    """Estimates how long runs take, and keeps to the deadline."""

    def __init__(self, deadline: float, *, has_links: bool) -> None:
        self._deadline = deadline
        self._each = dict(_GUESSES)
        if not has_links:
            self._each[BPFTRACE] = _BPFTRACE_ONE_BY_ONE
            self._each[BATCHPROBE] = self._each[f"{BATCHPROBE} event"]

    def expected(self, tool: str, count: int) -> float:
        """Expected seconds of a run."""
        return _ONCE + count * self._each.get(tool, _DEFAULT_GUESS)

    def took(self, tool: str, count: int, seconds: float) -> None:
        """Note how long a run took."""
        if count >= 10:
            self._each[tool] = max(seconds - _ONCE, 0.1) / count

    def is_over(self, seconds: float) -> bool:
        """Whether the deadline leaves less time than this."""
        return time.monotonic() + seconds > self._deadline


def measure(
    job: Job, run: Callable[[str], Values], count: int, pace: Pace
) -> tuple[dict[str, list[Values]], dict[str, str]]:
    """Let the tools take turns; the samples of each, and why one has none."""
    samples: dict[str, list[Values]] = {}
    left_out: dict[str, str] = {}
    spent = dict.fromkeys(job.tools, 0.0)
    last: dict[str, float] = {}
    for round_ in range(job.rounds):
        for tool in job.tools:
            seconds = last.get(tool) or pace.expected(tool, count)
            if tool in left_out or (round_ and spent[tool] + seconds > job.seconds):
                continue
            if seconds > job.seconds:
                left_out[tool] = f"{_TOO_SLOW} {seconds:.0f} s"
                continue
            if pace.is_over(seconds + job.leave):
                if not round_:
                    left_out[tool] = NO_TIME
                continue
            began = time.monotonic()
            try:
                values = run(tool)
            except Exception as error:
                # A tool that fails must not stop the others; the page shows why.
                left_out[tool] = f"failed: {error}"
                traceback.print_exc()
                say(f"{job.name}: {tool} {left_out[tool]}")
                continue
            last[tool] = time.monotonic() - began
            spent[tool] += last[tool]
            pace.took(tool, count, last[tool])
            samples.setdefault(tool, []).append(values)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            say(f"{job.name}: {tool}: {shown}")
    return samples, left_out


@contextmanager
def runner(job: Job, functions: Functions) -> Iterator[tuple[Callable[[str], Values], str, int]]:
    """The function that runs a tool once, the glob, and the number of functions."""
    if job.kind == HIT:
        with closing(Hits(functions, job.count)) as hits:
            yield hits.run, hits.name, 1
        return
    if job.kind == TOOLS:
        found = bcc.BPF.get_kprobe_functions(b".*")
        chosen = functions.choose_for_bcc(job.count, [name.decode() for name in found])
    else:
        chosen = functions.choose(job.count)
    count = len(chosen.functions)
    if job.kind == CALLS:
        yield Calls(chosen).run, chosen.glob, count
        return
    assert job.kind in {COMMAND, TOOLS}
    # A batched tool may arm some, load programs for a while, and arm the others.
    stall = {"stall_seconds": _TOOL_STALL_SECONDS} if job.kind == TOOLS else {}
    with closing(Witness([f.address for f in chosen.functions], **stall)) as witness:
        yield (
            (lambda tool: run_command(tool, chosen, witness, _WARM_SECONDS + job.seconds)),
            chosen.glob,
            count,
        )


def versions() -> dict[str, str]:
    """Versions of the kernel and the tools."""
    said = subprocess.run(["bpftrace", "--version"], capture_output=True, text=True, check=True)
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "release": os.uname().release,
        "cpus": str(os.cpu_count()),
        "cpu": cpu[0].partition(": ")[2] if cpu else platform.machine(),
        "bpftrace": said.stdout.split()[-1],
        "bcc": bcc.__version__,
        "python": platform.python_version(),
    }


def warm(functions: Functions, tools: set[str], pace: Pace) -> None:
    """Each command once, unmeasured: its files are in memory then."""
    chosen = functions.choose(1)
    with closing(Witness([f.address for f in chosen.functions])) as witness:
        for tool in sorted(tools):
            if not pace.is_over(pace.expected(tool, 1)):
                values = run_command(tool, chosen, witness, _WARM_SECONDS)
                say(f"{tool}, unmeasured: armed after {values['first']:.1f} s")


def main() -> int:
    """Run the jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("jobs", type=unpack)
    options = parser.parse_args()
    began = time.monotonic()
    # bcc has two descriptors for each function of funccount; the soft limit is 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    functions = Functions()
    pace = Pace(began + options.seconds, has_links=functions.kernel_has_links)
    facts = versions()
    say(f"{facts['release']}: {len(options.jobs)} measurements")
    commands = {tool for job in options.jobs if job.kind in {COMMAND, TOOLS} for tool in job.tools}
    warm(functions, commands, pace)
    for job in options.jobs:
        say(f"{job.name} begins, {time.monotonic() - began:.0f} s since the start")
        with runner(job, functions) as (run, glob, count):
            samples, left_out = measure(job, run, count, pace)
        result = {
            "kind": job.kind,
            "count": job.count,
            "functions": count,
            "glob": glob,
            "grace": grace_period(),
            "versions": facts,
            "samples": samples,
            "left_out": left_out,
            "complete": NO_TIME not in left_out.values(),
        }
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
