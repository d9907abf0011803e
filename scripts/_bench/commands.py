"""The tools as commands: how long until probes are armed, results are out, and all is over."""

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

# A tool that used hardly any CPU for so long is in the loop in which it waits for Ctrl-C.
_IDLE_SECONDS = 1.0
_IDLE_CPU_SECONDS = 0.1
_POLL_MS = 2
_WATCH_MS = 50
_QUIET_SECONDS = 30.0
# What batchprobe keeps for this boot.
_KEPT = Path("/run/batchprobe/boot")
_SHOWN = 2000


@dataclass
class Running:
    """A tool that has armed its probes."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    values: Values

    def said(self) -> str:
        """All it printed."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def stop(self, patience: float) -> None:
        """Ctrl-C, then watch: results, end (in so many seconds), peak of memory."""
        size = os.fstat(self.output.fileno()).st_size
        _note_memory(self.process.pid, self.values)
        ended = select.poll()
        with os.fdopen(os.pidfd_open(self.process.pid), "rb", buffering=0) as pidfd:
            ended.register(pidfd, select.POLLIN)
            began = time.perf_counter()
            self.process.send_signal(signal.SIGINT)
            # Until there are results, look for them; then hardly wake, for one thread emulates all.
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
        """Where it hangs."""
        folder = Path(f"/proc/{self.process.pid}")
        return f"{(folder / 'status').read_text()}{(folder / 'stack').read_text()}"


@contextlib.contextmanager
def started(tool: str, glob: str, witness: Witness, patience: float) -> Iterator[Running]:
    """The tool with its probes armed, in so many seconds; it is gone at the end of the block."""
    argv = command_line(tool, glob)
    # All tools are installed: what shows Python the measuring one is not for them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with TemporaryFile() as output:
        values: Values = {}
        began = time.perf_counter()
        # With a path and without close_fds Popen takes posix_spawn(3): what it does itself is not
        # the tool's time. (None of our descriptors is inherited all the same: PEP 446.)
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
    """One run from exec to exit, armed in so many seconds."""
    # The kernel takes jumps out, and ends what a tool held, some time after the tool has ended.
    end = time.monotonic() + _QUIET_SECONDS
    while before := witness.armed():
        if time.monotonic() > end:
            raise RuntimeError(f"{before} functions have probes already")
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
    """What a process has used so far."""
    # The name before the last parenthesis may hold anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _note_memory(pid: int, values: Values) -> None:
    """Peak memory in MB, as long as the process has any."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(r"^VmHWM:\s*(\d+) kB", text, re.MULTILINE):
            values["memory"] = int(found[1]) * 1024 / 1e6
