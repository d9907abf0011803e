# SPDX-License-Identifier: Apache-2.0
"""Runs the command as a user does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from helpers.machine import HANG_SECONDS, children, eventually, our_events
from helpers.schema import hold

__all__ = ["COMMAND", "Finished", "Running", "run", "run_script"]

COMMAND = (sys.executable, "-m", "batchprobe")


class Finished:
    """The result of a run of the command."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The objects of --json, one per line, as the schema describes them."""
        records = [json.loads(line) for line in self.stdout.splitlines()]
        hold(records)
        return records

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of --json."""
        last = self.records[-1]
        assert last["type"] == "summary", f"the last line is not a summary: {last}"
        return last

    @property
    def messages(self) -> list[str]:
        """The lines on stderr, without those that report progress on a slow machine."""
        stages = ("reading the kernel's symbols", "compiling", "attaching", "removing")
        progress = tuple(f"batchprobe: {stage}" for stage in stages)
        return [line for line in self.stderr.splitlines() if not line.startswith(progress)]

    def __repr__(self) -> str:
        return f"exit {self.status}\n-- stdout\n{self.stdout}\n-- stderr\n{self.stderr}"


def run(
    *arguments: str | Path,
    stdin: str | bytes = "",
    before: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run the command to its end; `before` is a command that runs it, such as unshare."""
    done = subprocess.run(
        (*before, *COMMAND, *map(str, arguments)),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=HANG_SECONDS,
        env=env,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_script(
    script: str,
    *arguments: str,
    before: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run a Python script that uses the library to its end; `before` is as in `run`."""
    done = subprocess.run(
        (*before, sys.executable, "-c", script, *arguments),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env=env,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


class Running:
    """The command, or another that prints such lines, while it runs; killed when the block ends."""

    def __init__(
        self,
        *arguments: str | Path,
        command: tuple[str, ...] = COMMAND,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            (*command, *map(str, arguments)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._output
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        with stream:
            for line in stream:
                self._output[name].append(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def until(self, seen: Callable[[], object], what: str) -> None:
        """Wait until `seen` returns true; fail if the command ends first."""
        eventually(lambda: seen() or not self.is_running, what)
        if not self.is_running:
            # It may have said it at its end, and the readers not have read that yet.
            self._join_readers()
        assert seen(), f"ended before {what}: {self.finish()!r}"

    def lines(self, kind: str) -> list[str]:
        """The --json lines of this `type` so far."""
        return [line for line in self._output["stdout"] if f'"type":"{kind}"' in line]

    def until_line(self, kind: str) -> None:
        """Wait for a --json line of this `type`."""
        self.until(lambda: self.lines(kind), f"a line of type {kind}")

    def until_stderr(self, words: str) -> None:
        """Wait for these words on stderr."""
        self.until(lambda: words in "".join(self._output["stderr"]), f"{words!r} on stderr")

    def until_stdout(self, words: str) -> None:
        """Wait for these words on stdout."""
        self.until(lambda: words in "".join(self._output["stdout"]), f"{words!r} on stdout")

    def until_signals_are_caught(self) -> None:
        """Wait until the process handles SIGHUP, SIGINT and SIGTERM."""
        wanted = sum(1 << (n - 1) for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))

        def caught() -> bool:
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return int(line.split()[1], 16) & wanted == wanted
            return False

        self.until(caught, "the signal handlers")

    def until_child(self, runs: str) -> int:
        """Wait for a child with `runs` in its command line; returns its pid."""

        def found() -> list[int]:
            return [pid for pid, command in children(self.pid).items() if runs in command]

        self.until(found, f"a child {runs}")
        return found()[0]

    def until_defined(self, probes: int) -> None:
        """Wait until at least this many probes of its trace events are defined."""
        self.until(lambda: len(our_events(self.pid)) >= probes, f"{probes} probes")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self) -> Finished:
        """Wait until it ends."""
        status = self.process.wait(HANG_SECONDS)
        self._join_readers()
        return Finished(status, "".join(self._output["stdout"]), "".join(self._output["stderr"]))

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join(HANG_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.process.kill()
        self.finish()
