# SPDX-License-Identifier: Apache-2.0
"""A reclaim that nobody waits for: results are final, and the guardian removes the rest."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.command import Finished, Running, run
from helpers.figures import report_figure
from helpers.machine import (
    ABIS,
    GUARDIAN,
    PREFIX,
    RCU_EXPEDITED,
    TRACEFS,
    eventually,
    our_events,
    our_processes,
)

from batchprobe import CommitReport, Session

CALLS = ("getppid", "getsid", "getpgid", "getpriority")
# Far above what is measured and far below what the reclaim takes.
PROMPT_SECONDS = 10.0
# With a grace period of full length for each probe, the reclaim takes seconds.
SLOW = ("--abi", "event", "--barrier", "normal")


def call_each() -> None:
    # By os.getppid() libc may not call the kernel.
    Path("/proc/self/stat").read_text()
    os.getppid()
    os.getsid(0)
    os.getpgid(0)
    os.getpriority(os.PRIO_PROCESS, 0)


@pytest.fixture
def some(tmp_path: Path) -> Path:
    file = tmp_path / "some"
    file.write_text("vfs_*\n")
    return file


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many"
    file.write_text("tcp_*\n")
    return file


@pytest.mark.usefixtures("guardian_ends")
@pytest.mark.parametrize("barrier", ["auto", "normal"])
@pytest.mark.parametrize("abi", ABIS)
def test_a_session_need_not_wait(abi: str, barrier: str) -> None:
    with Session(abi=abi, barrier=barrier) as session:
        probes = session.attach([f"{PREFIX}{call}" for call in CALLS])
        call_each()
        finals: list[int] = []
        report = session.detach_all(lambda: finals.extend(p.count for p in probes), wait=False)
        call_each()
        assert report.probes == report.dirty == report.handed_over == len(probes)
        assert report.barriers == 1
        assert finals == [probe.count for probe in probes]
        assert finals[1:] == [1] * (len(CALLS) - 1)
        assert not session.probes
        assert session.commit() == CommitReport(), "nothing is left to retry"
        # The session goes on with the same guardian.
        (again,) = session.attach([f"{PREFIX}getsid"])
        os.getsid(0)
        assert session.detach_all().failed == ()
        assert again.count == 1


@pytest.mark.usefixtures("guardian_ends")
@pytest.mark.parametrize("abi", ABIS)
def test_survivors_of_a_commit_that_does_not_wait(abi: str) -> None:
    with Session(abi=abi) as session:
        probes = session.attach([f"{PREFIX}{call}" for call in CALLS])
        session.detach(probes[2:])
        report = session.commit(wait=False)
        assert report.handed_over == 2
        call_each()
        assert [probe.count for probe in probes[1:]] == [1, 0, 0]
        if abi == "event":
            eventually(lambda: len(our_events(os.getpid())) == 2, "their definitions go")
        os.getsid(0)
        assert probes[1].count == 2
        session.close(wait=False)
    assert [probe.count for probe in probes[1:]] == [2, 0, 0]


@pytest.mark.parametrize("abi", ABIS)
def test_the_command_need_not_wait(abi: str, some: Path) -> None:
    done = run("attach", some, "-d", "0", "--json", "--abi", abi, "--no-wait")
    assert done.status == 0, done
    commit = done.summary["commit"]
    assert commit["handed_over"] == commit["probes"] == done.summary["attached"] > 0
    assert "`batchprobe cleanup --wait` waits for that" in done.stderr
    waited = run("cleanup", "--wait")
    assert (waited.status, waited.stdout) == (0, ""), waited
    assert not our_events()
    assert RCU_EXPEDITED.read_text().strip() == "0"


def left(many: Path) -> tuple[Finished, int]:
    """A run that a second Ctrl-C ended in the middle of the reclaim, and its guardian."""
    with Running("attach", many, "-i", "0.1", "--json", *SLOW) as running:
        running.until_line("counts")
        guardian = running.until_child(GUARDIAN)
        running.signal(signal.SIGINT)
        running.until_line("final")
        began = time.monotonic()
        running.signal(signal.SIGINT)
        done = running.finish()
        seconds = time.monotonic() - began
    assert done.status == 0, done
    commit = done.summary["commit"]
    assert commit["handed_over"] == commit["probes"] == done.summary["attached"] > 0
    assert (commit["barriers"], commit["left"]) == (1, 0)
    assert our_events(running.pid), "the reclaim was over too soon"
    assert seconds < PROMPT_SECONDS
    report_figure(f"{commit['probes']} probes, {' '.join(SLOW)}: {seconds:.2f} s to the prompt")
    return done, guardian


@pytest.mark.one_kernel
def test_a_second_ctrl_c_gives_the_prompt_back(many: Path) -> None:
    many.write_text("vfs_*\ntcp_*\nip_*\n")
    left(many)
    began = time.monotonic()
    asked = run("cleanup")
    assert asked.status == 0, asked
    assert "a background process removes probes" in asked.stderr
    waited = run("cleanup", "--wait")
    assert waited.status == 0, waited
    report_figure(f"  and {time.monotonic() - began:.2f} s until `cleanup --wait` was back")
    assert not our_events()


@pytest.mark.one_kernel
def test_the_next_attach_does_not_wait_for_the_removal(many: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("vfs_read\n")
    left(many)
    done = run("attach", few, "-d", "0", "--json")
    assert done.status == 0, done
    assert our_events(), "it waited"
    assert run("cleanup", "--wait").status == 0


@pytest.mark.one_kernel
@pytest.mark.parametrize("sweeper", ["cleanup", "start"])
def test_the_guardian_may_be_killed_then(sweeper: str, many: Path, tmp_path: Path) -> None:
    _, guardian = left(many)
    os.kill(guardian, signal.SIGKILL)
    eventually(lambda: not our_processes(), "the guardian ends")
    assert our_events(), "the removal was over too soon"
    if sweeper == "cleanup":
        swept = run("cleanup", "--wait")
        assert "removed the trace event batchprobe_" in swept.stdout
    else:
        few = tmp_path / "few"
        few.write_text("vfs_read\n")
        swept = run("attach", few, "-d", "0", "--json")
    assert swept.status == 0, swept
    assert not our_events()
    assert RCU_EXPEDITED.read_text().strip() == "0"


@pytest.mark.one_kernel
@pytest.mark.parametrize("killed", ["guardian", "command"])
def test_one_of_them_may_be_killed_while_the_command_waits(killed: str, many: Path) -> None:
    with Running("attach", many, "-i", "0.1", "--json", *SLOW) as running:
        running.until_line("counts")
        guardian = running.until_child(GUARDIAN)
        running.signal(signal.SIGINT)
        running.until_line("final")
        probes = len(our_events(running.pid))
        running.until(lambda: len(our_events(running.pid)) < probes, "the removal begins")
        os.kill(guardian if killed == "guardian" else running.pid, signal.SIGKILL)
        done = running.finish()
    if killed == "guardian":
        assert done.status == 0, done
        assert (done.summary["commit"]["handed_over"], done.summary["commit"]["left"]) == (0, 0)
        assert not our_events()
    else:
        assert done.status == -signal.SIGKILL
        eventually(lambda: not our_events(), "the guardian removes the events")
        eventually(lambda: not our_processes(), "the guardian ends")


@pytest.mark.one_kernel
def test_what_is_refused_is_reported_and_tried_again(some: Path) -> None:
    """The guardian cannot delete an event that another tool enabled."""
    with Running("attach", some, "-i", "0.1", "--json", *SLOW) as running:
        running.until_line("counts")
        events = {line.split()[0].partition(":")[2] for line in our_events(running.pid)}
        enabled = [TRACEFS / "events" / event / "enable" for event in events]
        for file in enabled:
            file.write_text("1")
        running.signal(signal.SIGINT)
        done = running.finish()
        for file in enabled:
            file.write_text("0")
    assert done.status == 5, done
    assert done.summary["commit"]["left"] == len(events)
    assert "(EBUSY)" in done.stderr
    eventually(lambda: not our_events(), "the guardian removes the events")
    eventually(lambda: not our_processes(), "the guardian ends")


@pytest.mark.long
@pytest.mark.parametrize("option", ["--no-wait", ""])
@pytest.mark.skipif("multi" not in ABIS, reason="an event of all functions takes minutes to attach")
def test_all_functions(option: str, tmp_path: Path) -> None:
    every, results = tmp_path / "every", tmp_path / "results"
    every.write_text("*\n")
    # To a file, because reading a line for each function would take longer than the end.
    options = (option,) if option else ()
    with Running("attach", every, "-i", "1", "--top", "9", "-o", results, *options) as running:
        running.until(lambda: results.exists() and results.read_text(), "the first counts")
        running.signal(signal.SIGINT)
        began = time.monotonic()
        if not option:
            time.sleep(0.1)
            running.signal(signal.SIGINT)
        done = running.finish()
        seconds = time.monotonic() - began
        waited = run("cleanup", "--wait")
        removed = time.monotonic() - began
    assert done.status == waited.status == 0, (done.status, waited)
    (line,) = [line for line in done.stderr.splitlines() if "count nothing any more" in line]
    probes = int(line.split()[1])
    assert probes > 10_000
    report_figure(
        f"{probes} probes, {option or 'second Ctrl-C'}: {seconds:.2f} s from the first Ctrl-C to "
        f"the prompt, removed after {removed:.2f} s"
    )
    assert seconds < PROMPT_SECONDS
