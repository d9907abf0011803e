# SPDX-License-Identifier: Apache-2.0
"""Processes that make known numbers of system calls, each pinned to a CPU."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Self

from helpers.machine import HANG_SECONDS, eventually

__all__ = ["CALLS", "Worker"]

# System calls that nothing else in a small guest makes during a test, not even a shell or Python
# that starts. Each name maps to Python that makes exactly one of them.
CALLS = {
    "sched_yield": "os.sched_yield",
    "getsid": "partial(os.getsid, 0)",
    "getpgid": "partial(os.getpgid, 0)",
    "getpriority": "partial(os.getpriority, os.PRIO_PROCESS, 0)",
    "getresuid": "os.getresuid",
    "getresgid": "os.getresgid",
    "sched_getparam": "partial(os.sched_getparam, 0)",
    "sched_getscheduler": "partial(os.sched_getscheduler, 0)",
    "sched_get_priority_max": "partial(os.sched_get_priority_max, os.SCHED_FIFO)",
    "sched_get_priority_min": "partial(os.sched_get_priority_min, os.SCHED_FIFO)",
}

_STOP, _ROUNDS = 0, 8

_PROGRAM = f"""
import mmap, os, sys
from functools import partial

os.sched_setaffinity(0, {{int(sys.argv[1])}})
calls = {{{", ".join(f"{name!r}: {code}" for name, code in CALLS.items())}}}
page = memoryview(mmap.mmap(int(sys.argv[2]), mmap.PAGESIZE)).cast("Q")
for line in sys.stdin:
    most, names = line.split()
    chosen = [calls[name] for name in names.split(",")]
    rounds, most = 0, int(most)
    while rounds != most and not page[{_STOP}]:
        for call in chosen:
            call()
        rounds += 1
        page[{_ROUNDS}] = rounds
    print(rounds, flush=True)
"""


class Worker:
    """A process pinned to a CPU. It is stopped, and its rounds are read, without a system call."""

    def __init__(self, cpu: int) -> None:
        fd = os.memfd_create("worker")
        os.ftruncate(fd, mmap.PAGESIZE)
        self._page = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")
        self._process = subprocess.Popen(
            (sys.executable, "-I", "-S", "-c", _PROGRAM, str(cpu), str(fd)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(fd,),
        )
        os.close(fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, calls: Iterable[str], rounds: int = -1) -> None:
        """Start calling each of `calls` in turn, `rounds` times or until `end`."""
        self._page[_STOP] = self._page[_ROUNDS] = 0
        if self._process.stdin is None:
            raise AssertionError("a worker has a stdin")
        self._process.stdin.write(f"{rounds} {','.join(calls)}\n")
        self._process.stdin.flush()

    @property
    def rounds(self) -> int:
        """Rounds done so far."""
        return self._page[_ROUNDS]

    def reach(self, more: int) -> None:
        """Wait until the worker has done `more` rounds from here."""
        goal = self.rounds + more
        eventually(lambda: self.rounds >= goal, "the worker goes on")

    def finish(self) -> int:
        """Wait for the rounds that `begin` started; returns how many were done."""
        if self._process.stdout is None:
            raise AssertionError("a worker has a stdout")
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Stop after the current round; returns how many were done."""
        self._page[_STOP] = 1
        return self.finish()

    def call(self, calls: Iterable[str], rounds: int) -> None:
        """Make each of `calls` `rounds` times."""
        self.begin(calls, rounds)
        done = self.finish()
        assert done == rounds, "the worker did not make all rounds"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._page[_STOP] = 1
        self._process.communicate(timeout=HANG_SECONDS)
