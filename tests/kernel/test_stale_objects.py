# SPDX-License-Identifier: Apache-2.0
"""Stale objects of a killed run are removed by its guardian or by `batchprobe cleanup`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import Running, run
from helpers.machine import BY_HAND, GUARDIAN, HANG_SECONDS, RCU_EXPEDITED, eventually, our_events
from helpers.traced import define, traced

from batchprobe.commit.rcu_expedited import RcuExpedited
from batchprobe.sys.process import Owner


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many"
    file.write_text("vfs_*\ntcp_*\n")
    return file


def kill(running: Running) -> None:
    running.signal(signal.SIGKILL)
    assert running.finish().status == -signal.SIGKILL


def check_guardian_cleans(running: Running, guardian: int) -> None:
    eventually(lambda: not our_events(running.pid), "the guardian removes the events")
    eventually(
        lambda: RCU_EXPEDITED.read_text().strip() == "0", "the guardian restores rcu_expedited"
    )
    eventually(lambda: not Path(f"/proc/{guardian}").exists(), "the guardian ends")


def test_the_guardian_removes_events_of_an_attach_that_was_killed(many: Path) -> None:
    with Running("attach", many, "--abi", "event") as running:
        guardian = running.until_child(GUARDIAN)
        running.until_defined(20)
        kill(running)
        check_guardian_cleans(running, guardian)


def test_the_guardian_respects_barrier_normal(tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("".join(f"vfs_{name}\n" for name in ("read", "write", "open", "statx")))
    normal = ("--abi", "event", "--barrier", "normal")
    with (
        traced("rcu_expedited_store", any_task=True) as calls,
        Running("attach", few, "-i", "0.1", "--json", *normal) as running,
    ):
        running.until_line("counts")
        guardian = running.until_child(GUARDIAN)
        kill(running)
        check_guardian_cleans(running, guardian)
        assert not calls()


def test_the_guardian_restores_rcu_expedited(many: Path) -> None:
    with Running("attach", many, "-i", "0.1", "--json", "--abi", "event") as running:
        guardian = running.until_child(GUARDIAN)
        running.until_line("counts")
        running.signal(signal.SIGINT)
        # Stop it when the counts are final and little or nothing is reclaimed.
        running.until_line("final")
        running.signal(signal.SIGSTOP)
        assert our_events(running.pid), "the reclaim was over too soon to be interrupted"
        assert RCU_EXPEDITED.read_text().strip() == "1"
        kill(running)
        check_guardian_cleans(running, guardian)


def test_cleanup_removes_stale_objects_and_nothing_else(
    many: Path, tmp_path: Path, by_hand: str
) -> None:
    few = tmp_path / "few"
    few.write_text("vfs_read\n")
    with (
        Running("attach", few, "-i", "0.1", "--json", "--abi", "event") as living,
        Running("attach", many, "-i", "0.1", "--json", "--abi", "event") as dying,
    ):
        living.until_line("counts")
        dying.until_line("counts")
        guardian = dying.until_child(GUARDIAN)
        dying.signal(signal.SIGSTOP)
        os.kill(guardian, signal.SIGKILL)
        kill(dying)
        assert our_events(dying.pid)

        swept = run("cleanup")
        assert swept.status == 0, swept
        assert f"removed the trace event batchprobe_{dying.pid}_" in swept.stdout
        assert not our_events(dying.pid)
        assert our_events(living.pid)
        assert by_hand in Path("/sys/kernel/tracing/kprobe_events").read_text()

        again = run("cleanup")
        assert (again.status, again.stdout) == (0, ""), again
        assert "nothing was left behind" in again.stderr

        seen = len(living.lines("counts"))
        living.until(lambda: len(living.lines("counts")) > seen, "the living one goes on counting")
        living.signal(signal.SIGINT)
        done = living.finish()
        assert done.status == 0, done
        assert done.summary["commit"]["left"] == 0


@pytest.fixture
def by_hand() -> Iterator[str]:
    """An event of another tool, whose name is nearly one of ours."""
    event = f"batchprobe_{os.getpid()}/foreign"
    define(f"p:{event} vfs_read{BY_HAND}")
    yield event
    define(f"-:{event}")


@pytest.fixture(autouse=True)
def _foreign_events_are_not_ours(request: pytest.FixtureRequest, leaves_nothing: None) -> None:
    """Order the fixtures: `leaves_nothing` checks after `by_hand` has removed its event."""


HOLDER = """
import os, sys
from pathlib import Path
from batchprobe.commit.rcu_expedited import RcuExpedited
from batchprobe.sys.process import Owner
rcu_expedited, me = RcuExpedited(), Owner.this_process()
for line in sys.stdin:
    getattr(rcu_expedited, line.strip())(me)
    print(Path("/sys/kernel/rcu_expedited").read_text().strip(), flush=True)
"""


class Holder:
    """Another process that takes rcu_expedited and gives it back."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-c", HOLDER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, what: str) -> str:
        """Take it or give it back; returns the value of rcu_expedited after that."""
        if self.process.stdin is None or self.process.stdout is None:
            raise AssertionError("both are pipes")
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=HANG_SECONDS)


@pytest.fixture
def holders() -> Iterator[tuple[Holder, Holder]]:
    pair = Holder(), Holder()
    yield pair
    for holder in pair:
        holder.end()


@pytest.fixture(params=["0", "1"])
def original(request: pytest.FixtureRequest) -> Iterator[str]:
    """The value of rcu_expedited that an administrator has set."""
    before = RCU_EXPEDITED.read_text()
    RCU_EXPEDITED.write_text(request.param)
    yield request.param
    RCU_EXPEDITED.write_text(before)


def test_rcu_expedited_is_restored_by_its_last_holder(
    original: str, holders: tuple[Holder, Holder]
) -> None:
    a, b = holders
    for first, second in ((a, b), (b, a)):
        assert a.do("take") == b.do("take") == "1"
        assert first.do("give_back") == "1"
        assert second.do("give_back") == original
    # If a holder is killed, the next one to give it back or to sweep restores the value.
    assert a.do("take") == b.do("take") == "1"
    a.end(signal.SIGKILL)
    assert RCU_EXPEDITED.read_text().strip() == "1"
    assert b.do("give_back") == original
    assert b.do("take") == "1"
    b.end(signal.SIGKILL)
    assert RcuExpedited().restore_for_dead() is True
    assert RCU_EXPEDITED.read_text().strip() == original
    assert RcuExpedited().restore_for_dead() is False


def test_a_value_that_was_set_meanwhile_stays() -> None:
    rcu_expedited, me = RcuExpedited(), Owner.this_process()
    rcu_expedited.take(me)
    RCU_EXPEDITED.write_text("0")
    rcu_expedited.give_back(me)
    assert RCU_EXPEDITED.read_text().strip() == "0"


def test_the_guardian_cleans_up_after_an_exit_without_a_commit() -> None:
    program = (
        "import os\n"
        "from batchprobe import Session\n"
        "Session(abi='event').attach(['vfs_read'])\n"
        "os._exit(5)\n"
    )
    done = subprocess.run((sys.executable, "-c", program), timeout=HANG_SECONDS, check=False)
    assert done.returncode == 5
    eventually(lambda: not our_events(), "the guardian removes the events")
