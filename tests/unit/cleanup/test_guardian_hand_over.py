# SPDX-License-Identifier: Apache-2.0
"""Remains go to a real guardian; descriptors of pipes stand for those of kernel objects."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from batchprobe.cleanup.crash_guard import CrashGuard
from batchprobe.commit.barrier import BarrierMode
from batchprobe.commit.queue import Remains
from batchprobe.sys import fds

WAIT_SECONDS = 20


@pytest.fixture
def guard() -> Iterator[CrashGuard]:
    guard = CrashGuard(BarrierMode.NORMAL, lambda: None)
    guard.arm()
    yield guard
    guard.disarm()
    with suppress(ChildProcessError):
        # One that was busy ends by itself.
        os.waitpid(-1, 0)


class Pipes:
    """Remains whose close can be seen: at the other end of each pipe."""

    def __init__(self, number: int) -> None:
        self.remains = Remains()
        self._readers: list[int] = []

        def pipe() -> int:
            reader, writer = os.pipe()
            self._readers.append(reader)
            return writer

        for _ in range(number):
            self.remains.fds.append(fds.open_noted(pipe))

    def are_closed(self, seconds: float = WAIT_SECONDS) -> bool:
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for reader in self._readers:
            poll.register(reader, 0)
        while len(poll.poll(0)) < len(self._readers):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        while self._readers:
            os.close(self._readers.pop())


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    # More than one message takes.
    some = Pipes(300)
    yield some
    some.close()


def guardian() -> int:
    """The only child of this process."""
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("is_prepared", [False, True])
def test_the_guardian_closes_them(guard: CrashGuard, pipes: Pipes, is_prepared: bool) -> None:
    if is_prepared:
        guard.prepare()
    assert guard.remove(pipes.remains, False) == ([], True)
    assert pipes.remains.is_empty
    assert pipes.are_closed()


def test_it_can_be_waited_for(guard: CrashGuard, pipes: Pipes) -> None:
    assert guard.remove(pipes.remains, lambda: True) == ([], False)
    assert pipes.are_closed(0)
    # It still is the guardian, and is dismissed at once.
    pid = guardian()
    guard.disarm()
    assert not Path(f"/proc/{pid}").exists()


def test_a_busy_guardian_is_dismissed_when_it_is_done(guard: CrashGuard, pipes: Pipes) -> None:
    pid = guardian()
    os.kill(pid, signal.SIGSTOP)
    assert guard.remove(pipes.remains, False) == ([], True)
    guard.disarm()
    assert not pipes.are_closed(0.1)
    os.kill(pid, signal.SIGCONT)
    assert pipes.are_closed()
    assert os.waitpid(pid, 0) == (pid, 0)


def test_waiting_may_end(guard: CrashGuard, pipes: Pipes) -> None:
    pid = guardian()
    os.kill(pid, signal.SIGSTOP)
    asked = iter([True, True, True, False])
    assert guard.remove(pipes.remains, lambda: next(asked)) == ([], True)
    assert pipes.remains.is_empty
    os.kill(pid, signal.SIGCONT)
    assert pipes.are_closed()


@pytest.mark.parametrize("is_waiting", [False, True])
def test_without_the_guardian_they_are_closed_here(
    guard: CrashGuard, pipes: Pipes, is_waiting: bool
) -> None:
    pid = guardian()

    def wait() -> bool:
        os.kill(pid, signal.SIGKILL)
        return True

    if not is_waiting:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert guard.remove(pipes.remains, wait if is_waiting else False) == ([], False)
    assert pipes.remains.is_empty
    assert pipes.are_closed(0)


def test_nothing_is_lost_if_the_parent_ends_at_once() -> None:
    program = (
        "import os\n"
        "from batchprobe.cleanup.crash_guard import CrashGuard\n"
        "from batchprobe.commit.barrier import BarrierMode\n"
        "from batchprobe.commit.queue import Remains\n"
        "from batchprobe.sys import fds\n"
        "guard = CrashGuard(BarrierMode.NORMAL, lambda: None)\n"
        "guard.arm()\n"
        "remains = Remains()\n"
        "remains.fds = [fds.open_noted(lambda: os.dup(1)) for _ in range(600)]\n"
        "guard.remove(remains, False)\n"
        "print('handed over', flush=True)\n"
        "os._exit(5)\n"
    )
    # The guardian keeps the pipe of stdout open until it has closed all.
    done = subprocess.run(
        (sys.executable, "-c", program),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, "handed over\n")
