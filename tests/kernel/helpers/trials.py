# SPDX-License-Identifier: Apache-2.0
"""Trials: end a run at a random moment, and measure how long until nothing is left of it."""

from __future__ import annotations

import enum
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from batchprobe.programs.shipped import COMPILE
from helpers.bpf import link_ids, program_ids
from helpers.command import COMMAND, Finished, Running, run
from helpers.machine import (
    ABIS,
    COMPILER,
    GUARDIAN,
    RCU_EXPEDITED,
    children,
    eventually,
    our_events,
    our_processes,
    setting,
)

__all__ = ["Outcome", "Phase", "Trial", "Trials"]

# A script that uses the library, with the interpreter's own signal handlers.
LIBRARY = """
import sys, time
from pathlib import Path
from batchprobe import Session
file, abi, barrier = sys.argv[1:]
with Session(abi=abi, barrier=barrier) as session:
    session.attach(Path(file).read_text().split())
    while True:
        print('{"type":"counts"}', flush=True)
        time.sleep(0.1)
"""
LIST = "vfs_*\nsyscall:getsid\n"


class Phase(enum.Enum):
    """A phase of a run."""

    START = "start-up"
    LOAD = "load"
    ATTACH = "attach"
    RUN = "run"
    COMMIT = "commit"


class End(enum.Enum):
    """The signals that end a run."""

    KILL = (signal.SIGKILL,)
    TERM = (signal.SIGTERM,)
    HUP = (signal.SIGHUP,)
    INT = (signal.SIGINT,)
    INT_KILL = (signal.SIGINT, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run, and how it is to end."""

    phase: Phase
    # How far into the phase, 0 to 1.
    moment: float
    end: End
    # Between two signals, in seconds.
    pause: float
    abi: str
    barrier: str
    # The value of rcu_expedited that an administrator has set.
    expedited: str
    # Use the library instead of the command.
    library: bool
    # Compile the programs instead of taking the shipped ones.
    compiles: bool
    # Run another one at the same time, and end it like this; with None it may finish.
    paired: bool
    other_end: End | None
    other_moment: float
    # If not empty, the guardian is killed first, and "cleanup" or the next "start" must sweep.
    swept_by: str
    # What the command does: attach, latency in a scope, and so on.
    command: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, number: int) -> Trial:
        """The trial of this number: phases take turns, everything else is random."""
        dice = random.Random(f"{seed}/{number}")
        phase = list(Phase)[number % len(Phase)]
        paired = phase in (Phase.ATTACH, Phase.RUN, Phase.COMMIT) and dice.random() < 0.3
        library = dice.random() < 0.25
        unguarded = not paired and phase is not Phase.START and dice.random() < 0.2
        # SIGKILL more often than others: after it, the guardian has to clean up.
        end = dice.choice([End.KILL, End.KILL, *End])
        if unguarded:
            end = End.KILL
        return cls(
            phase=phase,
            moment=dice.random(),
            end=end,
            pause=10 ** dice.uniform(-3, -0.3),
            # Two runs at once both have trace events, and may both hold rcu_expedited.
            abi="event" if paired else dice.choice(["event", "event", "auto", *ABIS]),
            barrier=dice.choice(["auto", "auto", "normal"]),
            expedited=dice.choice(["0", "0", "1"]),
            library=library,
            compiles=phase is Phase.LOAD and dice.random() < 0.3,
            paired=paired,
            other_end=dice.choice([None, *End]),
            other_moment=dice.random(),
            swept_by=dice.choice(["cleanup", "start"]) if unguarded else "",
            command=dice.choice(
                [
                    *(("attach",), ("attach",), ("latency", "--uid", "0")),
                    *(("trace", "-r", "--uid", "65534"), ("stacks", "--time")),
                ]
            ),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a trial."""

    trial: Trial
    # Seconds from the last signal until the kernel was as before, and until our processes ended;
    # None in a trial with a second run or a sweep.
    kernel_seconds: float | None
    processes_seconds: float | None
    # The run had ended by itself before the signal came.
    was_over: bool


@dataclass(frozen=True, slots=True)
class _Lengths:
    """How long each phase takes on this machine if it is not interrupted."""

    phases: dict[Phase, float]
    probes: int


class Trials:
    """Makes trials one after another; their files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._list = folder / "list"
        self._list.write_text(LIST)
        self._few = folder / "few"
        self._few.write_text("vfs_read\n")
        self._script = folder / "library.py"
        self._script.write_text(LIBRARY)
        # The first start reads files from disk; later ones find them in memory.
        warm = run("attach", self._few, "-d", "0", "--json")
        assert warm.status == 0, warm
        self._lengths = {"auto": self._measure("auto")}

    def _measure(self, barrier: str) -> _Lengths:
        times = [time.monotonic()]
        options = ("-i", "0.1", "--json", "--abi", "event", "--barrier", barrier)
        with Running("attach", self._list, *options) as running:
            running.until_child(GUARDIAN)
            times.append(time.monotonic())
            running.until_defined(1)
            times.append(time.monotonic())
            running.until_line("counts")
            times.append(time.monotonic())
            running.signal(signal.SIGINT)
            running.until_line("summary")
            times.append(time.monotonic())
            done = running.finish()
        assert done.status == 0, done
        assert done.summary["commit"]["left"] == 0
        start, load, attach, commit = (b - a for a, b in itertools.pairwise(times))
        return _Lengths(
            {
                Phase.START: start,
                Phase.LOAD: load,
                Phase.ATTACH: attach,
                Phase.RUN: 0.5,
                Phase.COMMIT: commit,
            },
            done.summary["attached"],
        )

    def _length(self, trial: Trial) -> float:
        # Expedited grace periods change the length of the commit only.
        barrier = trial.barrier if trial.phase is Phase.COMMIT else "auto"
        if barrier not in self._lengths:
            self._lengths[barrier] = self._measure(barrier)
        return self._lengths[barrier].phases[trial.phase]

    def make(self, trial: Trial) -> Outcome:
        """Make a trial; AssertionError if anything of ours stays, or anything of others goes."""
        length = self._length(trial)
        before = program_ids(), link_ids(), our_events()
        with setting(RCU_EXPEDITED, trial.expedited), ExitStack() as stack:
            victim = stack.enter_context(self._started(trial))
            other = stack.enter_context(self._started(trial)) if trial.paired else None
            was_over = self._end(trial, length, victim, other)
            ended = time.monotonic()
            if trial.swept_by:
                self._sweep(trial, victim)
            self._check_status(trial, victim)
            if other is not None:
                self._end_other(trial, victim, other)
            eventually(
                lambda: (
                    (program_ids(), link_ids(), our_events()) == before
                    and RCU_EXPEDITED.read_text().strip() == trial.expedited
                ),
                "the kernel is as it was",
            )
            kernel = time.monotonic()
            eventually(lambda: not our_processes(), "our processes end")
            if trial.paired or trial.swept_by:
                return Outcome(trial, None, None, was_over)
            return Outcome(trial, kernel - ended, time.monotonic() - ended, was_over)

    def _started(self, trial: Trial) -> Running:
        env = dict(os.environ)
        if trial.compiles:
            env |= {COMPILE: "1", "XDG_CACHE_HOME": tempfile.mkdtemp(dir=self._folder)}
        if trial.library:
            script = (sys.executable, str(self._script))
            return Running(self._list, trial.abi, trial.barrier, command=script, env=env)
        options = ("-i", "0.1", "--json", "--abi", trial.abi, "--barrier", trial.barrier)
        return Running(*trial.command, self._list, *options, command=COMMAND, env=env)

    def _end(self, trial: Trial, length: float, victim: Running, other: Running | None) -> bool:
        """Wait for the moment and end the run; returns whether it had ended before."""
        if trial.phase is Phase.LOAD or (trial.phase is Phase.ATTACH and trial.abi != "event"):
            victim.until_child(COMPILER if trial.compiles else GUARDIAN)
            if trial.phase is Phase.ATTACH:
                # The attach of another ABI leaves no sign of its start, so go by the time.
                time.sleep(self._lengths["auto"].phases[Phase.LOAD])
        elif trial.phase is Phase.ATTACH:
            victim.until_defined(1)
        elif trial.phase in (Phase.RUN, Phase.COMMIT):
            victim.until_line("counts")
        if trial.phase is Phase.COMMIT:
            if other is not None:
                other.until_line("counts")
                other.signal(signal.SIGINT)
            victim.signal(signal.SIGINT)
        time.sleep(trial.moment * length)
        if trial.swept_by:
            for pid, command in children(victim.pid).items():
                if GUARDIAN in command:
                    os.kill(pid, signal.SIGKILL)
        was_over = not victim.is_running
        _signal(victim, trial.end, trial.pause)
        return was_over

    def _sweep(self, trial: Trial, victim: Running) -> None:
        """Let another process remove what the victim left."""
        victim.finish()
        if trial.swept_by == "cleanup":
            swept = run("cleanup")
        else:
            swept = run("attach", self._few, "-d", "0", "--json")
        assert swept.status == 0, swept

    def _check_status(self, trial: Trial, victim: Running) -> None:
        done = victim.finish()
        *_, last = trial.end.value
        if last == signal.SIGKILL or trial.library or trial.phase is Phase.START:
            # SIGKILL and the interpreter's own handlers end with a status that is not ours.
            return
        assert "Traceback" not in done.stderr, done
        assert done.status in (0, 128 + last), done

    def _end_other(self, trial: Trial, victim: Running, other: Running) -> None:
        """The other run must lose nothing by the victim's end. Then end it too."""
        if trial.phase is Phase.COMMIT:
            # It is ending too, and both hold rcu_expedited.
            if trial.other_end is not None:
                time.sleep(trial.other_moment * self._length(trial))
                _signal(other, trial.other_end, trial.pause)
            else:
                _check_finished_well(trial, other.finish())
            return
        other.until_line("counts")
        eventually(lambda: not our_events(victim.pid), "the victim's events go")
        eventually(
            # The other run may be a script, which our_processes does not recognise.
            lambda: set(our_processes()) - {other.pid} == set(_guardians(other)),
            "the victim's guardian ends",
        )
        ends = 1 if trial.library or trial.command[0] == "attach" else 2
        probes = self._lengths["auto"].probes * ends
        assert len(our_events(other.pid)) == probes, "another run's probes were removed"
        _signal(other, trial.other_end or End.INT, trial.pause)
        if trial.other_end is None:
            _check_finished_well(trial, other.finish())


def _guardians(running: Running) -> list[int]:
    return [pid for pid, command in children(running.pid).items() if GUARDIAN in command]


def _signal(running: Running, end: End, pause: float) -> None:
    first, *more = end.value
    running.signal(first)
    for number in more:
        time.sleep(pause)
        running.signal(number)


def _check_finished_well(trial: Trial, done: Finished) -> None:
    if trial.library:
        # KeyboardInterrupt ended it, after the commit.
        assert done.status == -signal.SIGINT, done
        return
    assert done.status == 0, done
    assert done.summary["commit"]["left"] == 0
