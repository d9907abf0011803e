# SPDX-License-Identifier: Apache-2.0
"""SIGINT, SIGTERM or SIGHUP at any moment: the probes go, and the exit status is right."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.command import Finished, Running
from helpers.figures import report_figure
from helpers.machine import (
    COMPILER,
    GUARDIAN,
    RCU_EXPEDITED,
    children,
    eventually,
    our_events,
    our_processes,
)

from batchprobe.programs.shipped import COMPILE

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# Enough that a signal comes in the middle.
MANY = "vfs_*\ntcp_*\nip_*\n"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many"
    file.write_text(MANY)
    return file


def check_stopped_before_probes_were_on(done: Finished, number: int) -> None:
    assert done.status == 128 + number, done
    assert done.summary["attached"] == 0
    assert "Traceback" not in done.stderr
    assert not our_events()


def check_ran(done: Finished) -> None:
    assert done.status == 0, done
    assert done.summary["attached"] == done.summary["commit"]["probes"] > 0
    assert (done.summary["commit"]["barriers"], done.summary["commit"]["left"]) == (1, 0)
    assert done.records[-2]["type"] == "final"
    assert "Traceback" not in done.stderr
    assert not our_events()


# Each moment is tested with one of the three signals, and in the long form with all of them.
def each_signal(number: int) -> list[object]:
    return [
        pytest.param(n, marks=[] if n == number else [pytest.mark.long], id=n.name) for n in SIGNALS
    ]


def test_every_phase_answers(tmp_path: Path) -> None:
    """The times are for the documents."""
    fifo, unknown = tmp_path / "fifo", tmp_path / "unknown"
    os.mkfifo(fifo)
    unknown.write_text("".join(f"no_such_function_{at}\n" for at in range(33_000)))
    phases = {
        "waiting for a FIFO": ((str(fifo),), 1.0),
        "looking up 33,000 unknown names": ((str(unknown),), 1.5),
        "attaching all functions": (("*",), 3.0),
    }
    for phase, (arguments, seconds) in phases.items():
        with Running("attach", *arguments) as running:
            running.until_signals_are_caught()
            time.sleep(seconds)
            if not running.is_running:
                # On fast machines.
                report_figure(f"no Ctrl-C while {phase}: that takes less than {seconds} s")
                continue
            report_figure(f"Ctrl-C while {phase}: {_seconds_to_end(running):.2f} s to the end")
        assert not our_events()


def _seconds_to_end(running: Running) -> float:
    began = time.monotonic()
    running.signal(signal.SIGINT)
    done = running.finish()
    assert "Traceback" not in done.stderr
    return time.monotonic() - began


@pytest.mark.one_kernel
@pytest.mark.parametrize("number", each_signal(signal.SIGTERM))
def test_during_start_up(number: int, many: Path) -> None:
    with Running("attach", many, "--json") as running:
        running.until_signals_are_caught()
        running.signal(number)
        check_stopped_before_probes_were_on(running.finish(), number)


@pytest.mark.one_kernel
@pytest.mark.parametrize("number", each_signal(signal.SIGINT))
def test_during_the_compile(number: int, many: Path, tmp_path: Path) -> None:
    empty_cache = {**os.environ, COMPILE: "1", "XDG_CACHE_HOME": str(tmp_path)}
    with Running("attach", many, "--json", env=empty_cache) as running:
        compiler = running.until_child(COMPILER)
        running.signal(number)
        check_stopped_before_probes_were_on(running.finish(), number)
        assert not Path(f"/proc/{compiler}").exists()


@pytest.mark.parametrize("number", each_signal(signal.SIGHUP))
def test_during_the_attach(number: int, many: Path) -> None:
    with Running("attach", many, "--json", "--abi", "event") as running:
        running.until_defined(20)
        running.signal(number)
        check_stopped_before_probes_were_on(running.finish(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_during_the_run(number: int, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("vfs_read\nvfs_read%return\nvfs_write\n")
    with Running("attach", few, "-i", "0.1", "--json") as running:
        running.until_line("counts")
        guardian = running.until_child(GUARDIAN)
        running.signal(number)
        check_ran(running.finish())
        assert not Path(f"/proc/{guardian}").exists()


@pytest.mark.one_kernel
@pytest.mark.parametrize("number", each_signal(signal.SIGINT))
def test_again_during_the_commit(number: int, many: Path) -> None:
    """More signals do not abandon probes: the command leaves them to the guardian."""
    # With a grace period of full length per probe, the reclaim takes seconds.
    slow = ("--abi", "event", "--barrier", "normal")
    with Running("attach", many, "-i", "0.1", "--json", *slow) as running:
        running.until_line("counts")
        running.signal(signal.SIGTERM)
        running.until_line("final")
        assert our_events(running.pid), "the reclaim was over too soon to be interrupted"
        running.signal(number)
        running.signal(signal.SIGINT)
        done = running.finish()
    assert done.status == 0, done
    assert "still removing" in done.stderr
    commit = done.summary["commit"]
    assert commit["handed_over"] == commit["probes"] == done.summary["attached"] > 0
    assert done.records[-2]["type"] == "final"
    eventually(lambda: not our_events(), "the guardian removes the events")
    eventually(lambda: not our_processes(), "the guardian ends")


@pytest.mark.one_kernel
def test_under_nohup_sighup_is_ignored(tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("vfs_read\n")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = Running("attach", few, "-i", "0.1", "--json")
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with running:
        running.until_line("counts")
        running.signal(signal.SIGHUP)
        seen = len(running.lines("counts"))
        running.until(lambda: len(running.lines("counts")) > seen + 1, "counts after SIGHUP")
        running.signal(signal.SIGINT)
        check_ran(running.finish())


@pytest.mark.one_kernel
def test_the_traced_command_ends_with_batchprobe(tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("vfs_read\n")
    with Running("attach", few, "-i", "0.1", "--json", "-c", "sleep 1000") as running:
        running.until_line("counts")
        (sleeper,) = [pid for pid, what in children(running.pid).items() if "sleep" in what]
        running.signal(signal.SIGTERM)
        done = running.finish()
    assert done.status == 128 + signal.SIGTERM, done
    assert done.summary["commit"]["left"] == 0
    assert not Path(f"/proc/{sleeper}").exists()
    assert RCU_EXPEDITED.read_text().strip() == "0"
