# SPDX-License-Identifier: Apache-2.0
"""Whatever kills batchprobe, nothing of it stays, and nothing of others is touched."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.bpf import foreign_link
from helpers.command import COMMAND, Running, run
from helpers.figures import report_figure
from helpers.machine import (
    COMPILER,
    GUARDIAN,
    HANG_SECONDS,
    PREFIX,
    RCU_EXPEDITED,
    children,
    eventually,
    our_events,
    our_processes,
)
from helpers.traced import traced
from helpers.trials import Outcome, Trial, Trials

from batchprobe import AttachCancelledError, Session
from batchprobe.programs.compiler import Compiler
from batchprobe.programs.shipped import COMPILE

pytestmark = pytest.mark.stress

SEED = "BATCHPROBE_SEED"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many"
    file.write_text("vfs_*\n")
    return file


# -- at random moments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [pytest.param(5, id="short"), pytest.param(70, id="long", marks=pytest.mark.long)]
)
def test_runs_killed_at_random_moments_leave_nothing(number: int, tmp_path: Path) -> None:
    """Set BATCHPROBE_SEED to repeat the same trials."""
    seed = int(os.environ.get(SEED) or random.randrange(1 << 32))
    trials = Trials(tmp_path)
    outcomes: list[Outcome] = []
    failures: list[str] = []
    # Another tool has a probe on a function that we probe too, and a program and a link.
    with traced(f"{PREFIX}getsid") as calls, foreign_link():
        try:
            for at in range(number):
                trial = Trial.of(seed, at)
                try:
                    outcomes.append(trials.make(trial))
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    failures.append(f"{at}: {trial}: {error}")
                    # Clean up for the next trial.
                    eventually(lambda: not our_processes(), "the processes of a failed trial end")
                    run("cleanup")
        finally:
            _report(seed, outcomes, failures)
        before = calls().total()
        os.getsid(0)
        assert calls().total() == before + 1, "the other tool's event no longer counts"
    shown = "\n".join(failures)
    assert not failures, f"{SEED}={seed}: {len(failures)} of {number} trials failed\n{shown}"


def _report(seed: int, outcomes: list[Outcome], failures: list[str]) -> None:
    report_figure(
        f"killed at random moments, {SEED}={seed}: {len(outcomes)} passed, {len(failures)} failed"
    )
    phases = Counter(outcome.trial.phase.value for outcome in outcomes)
    ends = Counter(outcome.trial.end.name for outcome in outcomes)
    kinds = Counter(
        kind
        for outcome in outcomes
        for kind, is_one in {
            "two runs at once": outcome.trial.paired,
            "guardian killed too": outcome.trial.swept_by,
            "library": outcome.trial.library,
            "latency": not outcome.trial.library and outcome.trial.command[0] == "latency",
            "compiling": outcome.trial.compiles,
            "ended before the signal": outcome.was_over,
        }.items()
        if is_one
    )
    for counts in (phases, ends, kinds):
        report_figure("  " + ", ".join(f"{what}: {count}" for what, count in counts.items()))
    for name, times in {
        "killed: the kernel was as before": [
            o.kernel_seconds for o in outcomes if o.trial.end.value[-1] == signal.SIGKILL
        ],
        "other signals: the kernel was as before": [
            o.kernel_seconds for o in outcomes if o.trial.end.value[-1] != signal.SIGKILL
        ],
        "our processes ended": [o.processes_seconds for o in outcomes],
    }.items():
        known = sorted(seconds for seconds in times if seconds is not None)
        if known:
            report_figure(
                f"  {name} after {statistics.median(known):.2f} s (median), "
                f"{known[int(len(known) * 0.9)]:.2f} s (9 of 10), {known[-1]:.2f} s (most), "
                f"{len(known)} trials"
            )


# -- the guardian --------------------------------------------------------------------------------


@pytest.mark.one_kernel
def test_the_guardian_survives_signals_to_all_processes(many: Path) -> None:
    with Running("attach", many, "-i", "0.1", "--json", "--abi", "event") as running:
        guardian = running.until_child(GUARDIAN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guardian, number)
        running.until_line("counts")
        assert children(running.pid).keys() == {guardian}
        running.signal(signal.SIGKILL)
        running.finish()
        eventually(lambda: not our_events(), "the guardian removes the events")
        eventually(lambda: not our_processes(), "the guardian ends")


@pytest.mark.one_kernel
def test_cleanup_and_the_guardian_may_run_at_once(many: Path) -> None:
    """Both remove the same events, so the second finds them gone."""
    with Running("attach", many, "-i", "0.1", "--json", "--abi", "event") as running:
        running.until_line("counts")
        guardian = running.until_child(GUARDIAN)
        os.kill(guardian, signal.SIGSTOP)
        running.signal(signal.SIGKILL)
        running.finish()
        os.kill(guardian, signal.SIGCONT)
        swept = run("cleanup")
    assert swept.status == 0, swept
    eventually(lambda: not our_processes(), "the guardian ends")


# -- out of memory -------------------------------------------------------------------------------


class Cgroup:
    """A memory cgroup (v2) for one test."""

    ROOT = Path("/sys/fs/cgroup")

    def __init__(self) -> None:
        self.folder = self.ROOT / f"killed-{os.getpid()}"
        (self.ROOT / "cgroup.subtree_control").write_text("+memory")
        self.folder.mkdir()

    def command(self) -> tuple[str, ...]:
        """A command line that runs batchprobe in this cgroup."""
        script = f'echo 0 >{self.folder}/cgroup.procs && exec "$@"'
        return ("sh", "-c", script, "sh", *COMMAND)

    def exhaust(self, largest: int) -> None:
        """Allow so little memory that the kernel has to kill the process `largest`."""
        status = Path(f"/proc/{largest}/status").read_text().splitlines()
        (anon,) = [int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:")]
        # What cannot be reclaimed without a kill: all but files and the kernel's caches.
        counters = self._counters("memory.stat")
        kernels = ("slab_unreclaimable", "percpu", "kernel_stack", "pagetables", "vmalloc", "sock")
        used = counters["anon"] + sum(counters.get(name, 0) for name in kernels)
        (self.folder / "memory.max").write_text(str(used - anon // 2))

    @property
    def kills(self) -> int:
        """The number of processes that the OOM killer killed."""
        return self._counters("memory.events")["oom_kill"]

    def _counters(self, file: str) -> dict[str, int]:
        lines = [line.split() for line in (self.folder / file).read_text().splitlines()]
        return {name: int(value) for name, value in lines}

    def remove(self) -> None:
        eventually(lambda: not (self.folder / "cgroup.procs").read_text(), "the cgroup is empty")
        self.folder.rmdir()
        (self.ROOT / "cgroup.subtree_control").write_text("-memory")


@pytest.fixture
def cgroup(leaves_nothing: None) -> Iterator[Cgroup]:
    controllers = Cgroup.ROOT / "cgroup.controllers"
    if not controllers.exists() or "memory" not in controllers.read_text().split():
        assert not os.environ.get("BATCHPROBE_GUEST"), "the guest has no memory cgroups"
        pytest.skip("no memory cgroups (cgroup v2) here")
    group = Cgroup()
    yield group
    group.remove()


def watches(guardian: int) -> bool:
    """Whether the guardian waits for its parent to end, for which it opens a pidfd."""
    for fd in Path(f"/proc/{guardian}/fd").iterdir():
        # While it starts, descriptors come and go.
        with contextlib.suppress(FileNotFoundError):
            if "pidfd" in str(fd.readlink()):
                return True
    return False


@pytest.mark.parametrize("phase", ["attach", "run"])
def test_an_oom_kill_leaves_nothing(phase: str, many: Path, cgroup: Cgroup) -> None:
    """The kernel kills the largest process; the guardian, in the same cgroup, may die as well."""
    options = ("-i", "0.1", "--json", "--abi", "event")
    with Running("attach", many, *options, command=cgroup.command()) as running:
        if phase == "attach":
            running.until_defined(5)
        else:
            running.until_line("counts")
            # A guardian that is still starting would need more memory than will be left.
            guardian = running.until_child(GUARDIAN)
            eventually(lambda: watches(guardian), "the guardian has started")
        cgroup.exhaust(running.pid)
        assert running.finish().status == -signal.SIGKILL
        if cgroup.kills > 1:
            # The first victim's kernel memory was freed too late, so the guardian was killed too.
            assert run("cleanup").status == 0
            assert not our_events()
        eventually(lambda: not our_events(), "the guardian removes the events")
        eventually(lambda: not our_processes(), "the guardian ends")


def _killed_with_all_during_the_reclaim(many: Path, cgroup: Cgroup) -> Running:
    options = ("-i", "0.1", "--json", "--abi", "event")
    with Running("attach", many, *options, command=cgroup.command()) as running:
        running.until_line("counts")
        running.signal(signal.SIGINT)
        # Stop it when the counts are final and little or nothing is reclaimed.
        running.until_line("final")
        running.signal(signal.SIGSTOP)
        cgroup.exhaust(running.pid)
        assert running.finish().status == -signal.SIGKILL
        eventually(lambda: not our_processes(), "the guardian is killed too")
        assert cgroup.kills > 1
    return running


@pytest.mark.parametrize("sweeper", ["cleanup", "start"])
def test_an_oom_kill_of_all_can_be_cleaned_up(
    sweeper: str, many: Path, tmp_path: Path, cgroup: Cgroup
) -> None:
    """Both die during the reclaim. `batchprobe cleanup` removes the rest, or the next start."""
    (cgroup.folder / "memory.oom.group").write_text("1")
    # On a busy machine a reclaim may be over before it is stopped.
    for _ in range(5):
        running = _killed_with_all_during_the_reclaim(many, cgroup)
        if our_events():
            break
    assert our_events(), "the reclaims were over too soon to be interrupted"
    assert RCU_EXPEDITED.read_text().strip() == "1"
    if sweeper == "cleanup":
        swept = run("cleanup")
        assert f"removed the trace event batchprobe_{running.pid}_" in swept.stdout
        assert "restored rcu_expedited" in swept.stdout
    else:
        few = tmp_path / "few"
        few.write_text("vfs_read\n")
        swept = run("attach", few, "-d", "0", "--json")
    assert swept.status == 0, swept
    assert not our_events()
    assert RCU_EXPEDITED.read_text().strip() == "0"


@pytest.mark.one_kernel
def test_a_killed_container_can_be_cleaned_up(many: Path) -> None:
    """If the first process of a PID namespace dies, all others die too, even the guardian."""
    namespace = ("unshare", "--pid", "--fork", "--mount-proc", *COMMAND)
    options = ("-i", "0.1", "--json", "--abi", "event")
    with Running("attach", many, *options, command=namespace) as running:
        running.until_line("counts")
        (first,) = children(running.pid)
        probes = len(our_events())
        swept = run("cleanup")
        assert "nothing was left behind" in swept.stderr
        assert len(our_events()) == probes > 0
        os.kill(first, signal.SIGINT)
        running.until_line("final")
        os.kill(first, signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        running.finish()
        eventually(lambda: not our_processes(), "the guardian is killed too")
    assert our_events(), "the reclaim was over too soon to be interrupted"
    assert RCU_EXPEDITED.read_text().strip() == "1"
    swept = run("cleanup")
    assert swept.status == 0, swept
    assert "removed the trace event batchprobe_1_" in swept.stdout
    assert "restored rcu_expedited" in swept.stdout
    assert not our_events()
    assert RCU_EXPEDITED.read_text().strip() == "0"


# -- output that goes away -----------------------------------------------------------------------


class Terminal:
    """The command in a session with a terminal of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self._master, slave = os.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        # setsid -c: the command leads a session, and this is its terminal.
        self.process = subprocess.Popen(
            ("setsid", "-c", *COMMAND, *map(str, arguments)),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        self.shown = b""

    def until_shown(self, words: str) -> None:
        """Wait for these words on the screen."""
        deadline = time.monotonic() + HANG_SECONDS
        while words.encode() not in self.shown:
            assert time.monotonic() < deadline, f"not shown: {words}: {self.shown!r}"
            self.shown += os.read(self._master, 1 << 16)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        """Close the terminal, as closing its window does."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(HANG_SECONDS)


@pytest.mark.one_kernel
@pytest.mark.parametrize("phase", ["compile", "attach", "run", "commit"])
def test_a_closed_terminal_keeps_no_probe_attached(
    phase: str, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command gets SIGHUP more than once, and EIO on every write."""
    if phase == "compile":
        monkeypatch.setenv(COMPILE, "1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A slow reclaim shows a bar.
    with Terminal("attach", many, "--abi", "event", "--barrier", "normal") as terminal:
        if phase == "compile":
            terminal.until_shown("compiling")
        elif phase == "attach":
            terminal.until_shown("attaching")
        else:
            terminal.until_shown("Ctrl-C stops")
        if phase == "commit":
            terminal.type(b"\x03")
            terminal.until_shown("removing the probes")
        terminal.close()
        status = terminal.process.wait(HANG_SECONDS)
    # Status 1: results were lost. Once the commit has begun, there are none to lose.
    before_the_run = 128 + signal.SIGHUP
    expected = {"compile": {before_the_run}, "attach": {before_the_run, 1}, "run": {1}}
    assert status in expected.get(phase, {0})
    assert not our_events(), "the command left its probes to the guardian"
    assert not our_processes()


# Runs a command whose stderr is a pipe without a reader.
UNREAD_STDERR = """
import os, sys
read, write = os.pipe()
os.dup2(write, 2)
os.close(read)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.one_kernel
@pytest.mark.parametrize("drawing", [False, True])
def test_stderr_may_have_no_reader(
    drawing: bool, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the progress of a slow reclaim and the answer to a second signal are lost."""
    if drawing:
        monkeypatch.setenv("FORCE_COLOR", "1")
    command = (sys.executable, "-c", UNREAD_STDERR, *COMMAND)
    options = ("-i", "0.1", "--json", "--abi", "event", "--barrier", "normal")
    with Running("attach", many, *options, command=command) as running:
        running.until_line("counts")
        running.signal(signal.SIGTERM)
        running.until_line("final")
        assert our_events(), "the reclaim was over too soon to be interrupted"
        running.signal(signal.SIGHUP)
        done = running.finish()
    assert done.status == 0, done
    assert done.summary["commit"]["left"] == 0
    assert done.summary["commit"]["probes"] == done.summary["attached"] > 0
    assert not our_events()


# -- exceptions in callbacks ---------------------------------------------------------------------


class CallbackError(Exception):
    """Raised by a callback of the caller."""


def raising(stage: str, after: int = 0) -> Callable[[str, int, int], None]:
    """A `progress` that raises once `after` probes of a stage are done, and ever after."""
    broken = False

    def progress(now: str, done: int, total: int) -> None:
        nonlocal broken
        broken = broken or (now == stage and done >= after)
        if broken:
            raise CallbackError(f"{now}: {done} of {total}")

    return progress


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes the next attach compile its programs."""
    monkeypatch.setattr(Compiler, "_compiled", {})
    monkeypatch.setenv(COMPILE, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("compiles")
@pytest.mark.parametrize("stage", ["resolve", "compile"])
def test_progress_may_raise_before_the_attach(stage: str) -> None:
    with Session(abi="event", progress=raising(stage)) as session:
        with pytest.raises(CallbackError, match=stage):
            session.attach(["vfs_read"])
        assert not session.probes
        assert COMPILER not in " ".join(children().values())


@pytest.mark.parametrize("barrier", ["auto", "normal"])
@pytest.mark.parametrize("after", [1, 5, 9])
def test_progress_may_raise_during_the_attach(after: int, barrier: str) -> None:
    """Within the first kind of probe, at its end, and within the second kind."""
    entries = [f"vfs_{name}" for name in ("read", "write", "open", "getattr", "statx")]
    entries += [f"{name}%return" for name in entries]
    with Session(abi="event", barrier=barrier, progress=raising("attach", after)) as session:
        with pytest.raises(CallbackError, match="attach"):
            session.attach(entries)
        assert not session.probes
        assert not our_events(), "the events stayed until the session's end"


def test_progress_may_raise_during_the_reclaim() -> None:
    entries = [f"vfs_{name}" for name in ("read", "write", "open", "getattr", "statx")]
    session = Session(abi="event", barrier="normal", progress=raising("reclaim"))
    with pytest.raises(CallbackError, match="reclaim"), session:
        session.attach(entries)
    assert not our_events()


@pytest.mark.parametrize("abi", ["event", "auto"])
def test_on_final_may_raise(abi: str) -> None:
    def final() -> None:
        raise CallbackError("final")

    with Session(abi=abi) as session:
        session.attach(["vfs_read", "vfs_write%return"])
        with pytest.raises(CallbackError, match="final"):
            session.detach_all(final)
        assert not session.attached
        assert not our_events()


@pytest.mark.parametrize("abi", ["event", "auto"])
@pytest.mark.parametrize("raises", [False, True])
def test_an_attach_can_be_cancelled_at_each_call_of_cancelled(abi: str, raises: bool) -> None:
    """It is called many times during an attach, and each time it may return True or raise."""
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        if calls <= uncancelled:
            return False
        if raises:
            raise CallbackError("cancelled")
        return True

    entries = ["vfs_read", "vfs_write", "vfs_open%return"]
    with Session(abi=abi) as session:
        uncancelled = 0
        while not session.attached:
            calls = 0
            with contextlib.suppress(CallbackError if raises else AttachCancelledError):
                session.attach(entries, cancelled=cancelled)
            if not session.attached:
                assert not our_events()
            uncancelled += 1
        assert uncancelled > 2, "`cancelled` was hardly called"
