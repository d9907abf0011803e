# SPDX-License-Identifier: Apache-2.0
"""The tools as commands: seconds until probes are armed, results are printed, and all is gone."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from _bench.calls import Values, grace_period
from _bench.functions import FunctionSet
from _bench.jobs import FIRST_START
from _bench.tools import command_line
from _bench.witness import Witness

# A tool that has used hardly any CPU for this long is waiting for Ctrl-C.
_IDLE_SECONDS = 1.0
_IDLE_CPU_SECONDS = 0.1
_POLL_MS = 2
_WATCH_MS = 50
_QUIET_SECONDS = 30.0
# Where batchprobe keeps the kernel's symbols for this boot.
_KEPT = Path("/run/batchprobe/boot")
_SHOWN = 2000


@dataclass
class Running:
    """A tool that has armed its probes."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    values: Values

    def said(self) -> str:
        """Its output so far."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def stop(self, patience: float) -> None:
        """Send Ctrl-C, and measure the time to results and to the end, and peak memory."""
        size = os.fstat(self.output.fileno()).st_size
        _note_memory(self.process.pid, self.values)
        ended = select.poll()
        with os.fdopen(os.pidfd_open(self.process.pid), "rb", buffering=0) as pidfd:
            ended.register(pidfd, select.POLLIN)
            began = time.perf_counter()
            self.process.send_signal(signal.SIGINT)
            # Poll often only until there are results: one thread may emulate all CPUs.
            while not ended.poll(_WATCH_MS if "final" in self.values else _POLL_MS):
                now = time.perf_counter()
                if "final" in self.values:
                    _note_memory(self.process.pid, self.values)
                elif os.fstat(self.output.fileno()).st_size > size:
                    self.values["final"] = now - began
                if now - began > patience:
                    raise RuntimeError(f"it did not end in {patience:.0f} s: {self._state()}")
            self.values["exit"] = time.perf_counter() - began
        self.process.wait()
        self.values.setdefault("final", self.values["exit"])
        if self.process.returncode:
            raise RuntimeError(f"it ended with {self.process.returncode}: {self.said()[-_SHOWN:]}")

    def _state(self) -> str:
        """Where in the kernel it waits."""
        folder = Path(f"/proc/{self.process.pid}")
        return f"{(folder / 'status').read_text()}{(folder / 'stack').read_text()}"


@contextlib.contextmanager
def started(tool: str, glob: str, witness: Witness, patience: float) -> Iterator[Running]:
    """Start a tool and wait for its probes; after the block it is gone."""
    argv = command_line(tool, glob)
    # The tools are installed: PYTHONPATH is only for the bench itself.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with TemporaryFile() as output:
        values: Values = {}
        began = time.perf_counter()
        # With an absolute path and close_fds=False, Popen uses posix_spawn(3), so that no fork of
        # ours is measured. The tool inherits no descriptor anyway (PEP 446).
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=False,
            env=env,
        )
        running = Running(process, output, values)
        try:
            end = began + patience
            armed = witness.wait(
                began, lambda: process.poll() is None and time.perf_counter() < end
            )
            if armed.last <= 0 or process.returncode is not None:
                state = f"ended with {process.returncode}"
                if process.returncode is None:
                    state = f"armed nothing in {patience:.0f} s"
                raise RuntimeError(f"it {state}: {running.said()[-_SHOWN:]}")
            values["first"], values["all"] = armed.first, armed.last
            while process.poll() is None and time.perf_counter() < end:
                before = _cpu_seconds(process.pid)
                time.sleep(_IDLE_SECONDS)
                if _cpu_seconds(process.pid) - before < _IDLE_CPU_SECONDS:
                    break
            yield running
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def run_command(tool: str, chosen: FunctionSet, witness: Witness, patience: float) -> Values:
    """One run from exec to exit."""
    # The kernel removes jumps and frees probes some time after the tool has ended.
    end = time.monotonic() + _QUIET_SECONDS
    while before := witness.armed():
        if time.monotonic() > end:
            raise RuntimeError(f"{before} functions still have probes of an earlier run")
        time.sleep(_IDLE_SECONDS)
    if tool == FIRST_START:
        shutil.rmtree(_KEPT, ignore_errors=not _KEPT.exists())
    with started(tool, chosen.glob, witness, patience) as running:
        values = running.values
        values["attached"] = witness.armed()
        values["grace"] = grace_period()
        _note_memory(running.process.pid, values)
        values["fds"] = sum(1 for _ in Path(f"/proc/{running.process.pid}/fd").iterdir())
        running.stop(patience)
    return values


def _cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    # The name before the last parenthesis may hold anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _note_memory(pid: int, values: Values) -> None:
    """Note the peak memory in MB, unless the process has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(r"^VmHWM:\s*(\d+) kB", text, re.MULTILINE):
            values["memory"] = int(found[1]) * 1024 / 1e6
