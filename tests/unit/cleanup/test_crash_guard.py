# SPDX-License-Identifier: Apache-2.0
"""CrashGuard with a real guardian process; what that removes is tested on kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchprobe.cleanup.crash_guard import CrashGuard
from batchprobe.commit.barrier import BarrierMode

WAIT_SECONDS = 20


def children() -> dict[int, str]:
    """The command lines of this process's children, by PID."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                command = (process / "cmdline").read_bytes().decode().replace("\0", " ")
                found[int(process.name)] = command
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


@pytest.fixture
def guard() -> Iterator[CrashGuard]:
    guard = CrashGuard(BarrierMode.NORMAL, lambda: None)
    yield guard
    guard.disarm()


def test_one_guardian_from_arm_to_disarm(guard: CrashGuard) -> None:
    before = children()
    guard.prepare()
    guard.disarm()
    assert (guard.is_armed, children()) == (False, before)
    for _ in range(2):
        guard.arm()
        guard.arm()
        assert guard.is_armed
        (guardian,) = children().keys() - before.keys()
        guard.prepare()
        deadline = time.monotonic() + WAIT_SECONDS
        while not children()[guardian].startswith(sys.executable):
            assert time.monotonic() < deadline, children()
        guard.disarm()
        assert (guard.is_armed, children()) == (False, before)


def test_a_shell_that_was_never_prepared_ends_too(guard: CrashGuard) -> None:
    before = children()
    guard.arm()
    guard.disarm()
    assert children() == before


@pytest.mark.parametrize(("disarmed", "printed"), [(False, "at exit\n"), (True, "")])
def test_at_exit_is_called_while_armed(disarmed: bool, printed: str) -> None:
    program = (
        "from batchprobe.cleanup.crash_guard import CrashGuard\n"
        "from batchprobe.commit.barrier import BarrierMode\n"
        "def at_exit():\n"
        "    print('at exit')\n"
        "    guard.disarm()\n"
        "guard = CrashGuard(BarrierMode.NORMAL, at_exit)\n"
        "guard.arm()\n"
    ) + "guard.disarm()\n" * disarmed
    done = subprocess.run(
        (sys.executable, "-c", program), check=True, capture_output=True, text=True
    )
    assert done.stdout == printed
