# SPDX-License-Identifier: Apache-2.0
"""The cost of a hit: a loop of getppid(2) with a probe minus the same loop without."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bcc import BPF

from _bench.calls import Values, bcc_program, idle_program, setting
from _bench.commands import started
from _bench.functions import Functions
from _bench.jobs import (
    ACCEPTED,
    BATCHPROBE,
    BCC,
    BPFTRACE,
    FUNCCOUNT,
    FUNCLATENCY,
    LATENCY,
    LINK,
    OWN,
    PRINTF,
    REJECTED,
    TRACE,
    UNOPTIMIZED,
)
from _bench.witness import Witness
from _bench.worker import Worker
from batchprobe import Session
from batchprobe.actions.latency import Latency
from batchprobe.filters.pid import Pid
from batchprobe.sys import bpf, fds

# getppid(2) calls it once, and a jump fits after its entry, unlike in the system call's function.
_FUNCTION = "__task_pid_nr_ns"
_CALLS = 2000
# Long enough for the processes on several CPUs to overlap.
_CALLS_TOGETHER = 20_000
_BATCHES = 25
_OPTIMIZER_SECONDS = 3.0
_START_SECONDS = 120.0
_KPROBES = Path("/sys/kernel/debug/kprobes/list")
# Whether the kernel replaces breakpoints by jumps.
_OPTIMIZE = Path("/proc/sys/debug/kprobes-optimization")


class Hits:
    """Measures the tools with one process per CPU."""

    def __init__(self, functions: Functions, cpus: int) -> None:
        function = functions.find(_FUNCTION)
        self.name, self._address = function.name, function.address
        self._witness = Witness([self._address])
        self._workers = [Worker(cpu) for cpu in sorted(os.sched_getaffinity(0))[:cpus]]
        self._calls = _CALLS if cpus == 1 else _CALLS_TOGETHER
        if len(self._workers) < cpus:
            raise RuntimeError(f"there are only {len(self._workers)} CPUs")

    def run(self, tool: str) -> Values:
        """Nanoseconds a call, without the probe and with it."""
        base = self._nanoseconds()
        with self._probed(tool):
            if not self._witness.is_armed(self._address):
                raise RuntimeError(f"{tool} armed nothing")
            optimized = self._optimized()
            probed = self._nanoseconds()
        return {"base": base, "cost": probed - base, "optimized": float(optimized)}

    def close(self) -> None:
        """End the processes."""
        self._witness.close()
        for worker in self._workers:
            worker.close()

    def _nanoseconds(self) -> float:
        batches = []
        for _ in range(_BATCHES):
            for worker in self._workers:
                worker.begin(self._calls)
            batches.append(statistics.mean(worker.end() for worker in self._workers))
        # The minimum, because other work only adds.
        return min(batches) / self._calls * 1e9

    @contextlib.contextmanager
    def _probed(self, tool: str) -> Iterator[None]:
        if tool in (FUNCCOUNT, BPFTRACE, FUNCLATENCY, TRACE, PRINTF):
            with started(tool, self.name, self._witness, _START_SECONDS) as running:
                yield
                running.stop(_START_SECONDS)
        elif tool == BCC:
            bcc_program().attach_kprobe(event=self.name, fn_name="hit")
            try:
                yield
            finally:
                bcc_program().detach_kprobe(event=self.name)
        elif tool == OWN:
            program = bcc_program().load_func("hit", BPF.KPROBE)
            with Session() as session:
                session.attach([self.name], program=program)
                yield
        elif tool in (ACCEPTED, REJECTED):
            pids = [worker.pid for worker in self._workers] if tool == ACCEPTED else [os.getpid()]
            with Session(filters=[Pid(*pids)]) as session:
                session.attach([self.name])
                yield
        elif tool == LATENCY:
            with Session(action=Latency()) as session:
                session.attach([self.name])
                yield
        elif tool == LINK:
            with _link(self._address):
                yield
        else:
            abi, placement, *more = [*tool.removeprefix(BATCHPROBE).split(), "auto", "auto"]
            optimizes = UNOPTIMIZED not in more
            with (
                setting(_OPTIMIZE, f"{int(optimizes)}\n"),
                Session(abi=abi, placement=placement) as session,
            ):
                session.attach([self.name])
                yield

    def _optimized(self) -> bool:
        """Whether the kernel has replaced the breakpoint by a jump, given the time."""
        end = time.monotonic() + _OPTIMIZER_SECONDS
        while True:
            mine = [
                line
                for line in _KPROBES.read_text().splitlines()
                if re.search(rf"\s{re.escape(self.name)}\+", line)
            ]
            if any("[OPTIMIZED]" in line for line in mine):
                return True
            # Links and probes that use ftrace are never optimized.
            if not mine or all("[FTRACE]" in line for line in mine) or time.monotonic() > end:
                return False
            time.sleep(0.1)


@contextlib.contextmanager
def _link(address: int) -> Iterator[None]:
    with idle_program(bpf.BPF_TRACE_KPROBE_MULTI) as program:
        link = bpf.kprobe_multi_link(program, [address])
        try:
            yield
        finally:
            fds.close(link)
