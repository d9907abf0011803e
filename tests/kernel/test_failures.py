# SPDX-License-Identifier: Apache-2.0
"""If the kernel refuses a call, all else goes on; what stays is reported and tried again."""

from __future__ import annotations

import errno
import itertools
import random
import signal
from pathlib import Path

import pytest
from helpers.command import Running, run, run_script
from helpers.failing import Calls, failing_calls
from helpers.figures import report_figure
from helpers.machine import (
    ABIS,
    GUARDIAN,
    RCU_EXPEDITED,
    RELEASE,
    TRACEFS,
    eventually,
    kinds,
    our_events,
)
from helpers.workers import CALLS, Worker

from batchprobe import BatchprobeError, CommitReport, KernelError, Probe, Session

ENTRIES = [f"syscall:{call}{kind}" for kind in kinds("event") for call in list(CALLS)[:4]]
# Errors that any call may return. If loading a program fails with EAGAIN, it is tried again.
ERRORS = (errno.ENOMEM, errno.EPERM, errno.EBUSY, errno.EAGAIN)


class Trial:
    """Attaches a few probes, detaches one half, then the other, and checks counts and objects."""

    def __init__(self, session: Session, worker: Worker) -> None:
        self.session = session
        self.worker = worker
        self.fds = _fds()
        self.failed = ""

    def run(self, calls: Calls) -> None:
        try:
            probes = self.session.attach(ENTRIES)
        except BatchprobeError:
            probes = []
        counts = dict.fromkeys(probes, 0)
        self._hit(counts, probes)
        half = len(probes) // 2 + 1
        for leaving in (probes[:half], probes[half:]):
            self.session.detach(leaving)
            # From here on they count nothing, whether or not the commit succeeds.
            self._hit(counts, self.session.attached)
            report = self._commit()
            self._hit(counts, self.session.attached)
        if report is not None and not report.failed:
            assert _fds() == self.fds
            assert not our_events()
        self.failed = calls.failed
        calls.begin(0)
        # Calls no longer fail, so whatever stayed goes now.
        assert self.session.commit().failed == ()
        assert _fds() == self.fds
        assert not our_events()
        assert RCU_EXPEDITED.read_text().strip() == "0"
        assert {probe: probe.count for probe in probes} == counts
        assert not self.session.probes

    def _hit(self, counts: dict[Probe, int], attached: list[Probe]) -> None:
        self.worker.call(list(CALLS)[:4], 1)
        for probe in attached:
            counts[probe] += 1

    def _commit(self) -> CommitReport | None:
        try:
            return self.session.commit()
        except KernelError:
            return None


def _fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.stress
@pytest.mark.parametrize("abi", ABIS)
def test_any_call_may_fail(abi: str, workers: list[Worker], request: pytest.FixtureRequest) -> None:
    """In the long form each call fails with each error, otherwise some calls do."""
    every = "long" in request.config.option.markexpr.replace("not long", "")
    with Session(abi=abi) as session, failing_calls() as calls:
        session.detach(session.attach(["syscall:getsid"]), commit=True)
        trial = Trial(session, workers[0])
        calls.begin(-1)
        trial.run(calls)
        tried = 0
        for number in ERRORS:
            # Chosen at random, because a failure of this test names its call.
            numbers = itertools.count(1) if every else itertools.count(random.randint(1, 12), 13)
            for at in numbers:
                calls.begin(at, number)
                try:
                    trial.run(calls)
                except AssertionError as error:
                    what = calls.failed or trial.failed
                    error.add_note(f"call {at}, {what}, failed with {errno.errorcode[number]}")
                    raise
                if not trial.failed:
                    break
                tried += 1
        report_figure(f"{abi}: {tried} trials with one failing call")


def stdout_of(script: str, *arguments: str, before: tuple[str, ...] = ()) -> str:
    """The output of a script, which must succeed."""
    done = run_script(script, *arguments, before=before)
    assert done.status == 0, done
    return done.stdout


# Only the script sees what it mounts.
ALONE = ("unshare", "-m")

READ_ONLY = """
import errno, os, subprocess
from batchprobe import Session

def tracefs(options):
    subprocess.run(
        ("mount", "-o", f"remount,bind,{options}", "/sys/kernel/tracing"), check=True
    )

subprocess.run(
    ("mount", "--bind", "/sys/kernel/tracing", "/sys/kernel/tracing"), check=True
)
with Session(abi="event") as session:
    probes = session.attach(["syscall:getsid", "syscall:getpgid", "syscall:sched_yield"])
    os.getsid(0), os.sched_yield()
    tracefs("ro")
    session.detach(probes[0])
    report = session.commit()
    assert [failure.errno for failure in report.failed] == [errno.EROFS], report
    os.getsid(0), os.sched_yield()
    # A detached probe that cannot be deleted no longer counts; the others go on.
    assert [probe.count for probe in probes] == [1, 0, 2]
    report = session.detach_all()
    assert {failure.errno for failure in report.failed} == {errno.EROFS}, report
    assert all("batchprobe_" in failure.what for failure in report.failed)
    # This ABI cannot attach new probes either.
    try:
        session.attach(["syscall:getsid"])
        raise SystemExit("attached")
    except Exception as error:
        assert "took none" in str(error), error
    assert "EROFS" in str(session.skipped[0]), session.skipped
    tracefs("rw")
    assert session.commit().failed == ()
    print("gone")
"""


def test_tracefs_that_became_read_only() -> None:
    assert stdout_of(READ_ONLY, before=ALONE) == "gone\n"


RCU_EXPEDITED_READ_ONLY = """
import errno, os, subprocess
from pathlib import Path
from batchprobe import CommitReport, Session
rcu_expedited = Path("/sys/kernel/rcu_expedited")

def sysfs(options):
    subprocess.run(("mount", "-o", f"remount,bind,{options}", rcu_expedited), check=True)

subprocess.run(("mount", "--bind", rcu_expedited, rcu_expedited), check=True)
with Session() as session:
    first, second, third = session.attach(
        ["syscall:getsid", "syscall:getpgid", "syscall:sched_yield"]
    )
    session.detach(first)
    report = session.commit(lambda: sysfs("ro"))
    assert [failure.errno for failure in report.failed] == [errno.EROFS], report
    assert rcu_expedited.read_text().strip() == "1"
    assert [failure.errno for failure in session.commit().failed] == [errno.EROFS]
    sysfs("rw")
    assert session.commit() == CommitReport()
    assert rcu_expedited.read_text().strip() == "0"
    # If it cannot be set, grace periods are not expedited.
    sysfs("ro")
    session.detach(second)
    report = session.commit()
    assert (report.probes, report.failed) == (1, ()), report
    assert "Read-only" in session.barrier_note
    os.sched_yield()
    assert third.count == 1, third.count
print(third.count)
"""


def test_rcu_expedited_that_became_read_only() -> None:
    assert stdout_of(RCU_EXPEDITED_READ_ONLY, before=ALONE) == "1\n"


UNPRIVILEGED = """
import errno, os, sys
from batchprobe import Session
session = Session(abi=sys.argv[1])
probes = session.attach(["syscall:getsid", "syscall:getpgid", "syscall:sched_yield"])
os.getsid(0)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
os.getsid(0)
assert [probe.count for probe in probes] == [2, 0, 0]
session.detach(probes[1])
session.commit()
report = session.close()
# The counts are final anyway; only the deletion of the event's definition needs root.
assert [probe.count for probe in probes] == [2, 0, 0]
wanted = {errno.EACCES} if sys.argv[1] == "event" else set()
assert {failure.errno for failure in report.failed} == wanted, report
print("still there" if report.failed else "gone")
"""


@pytest.mark.parametrize("abi", ABIS)
def test_rights_given_up_since_the_attach(abi: str) -> None:
    printed = stdout_of(UNPRIVILEGED, abi)
    assert printed == ("still there\n" if abi == "event" else "gone\n")
    # The guardian has kept its rights.
    eventually(lambda: not our_events(), "the guardian removes the events")


FEW_FILES = """
import os, resource, sys
from batchprobe import BatchprobeError, Session
calls = [f"syscall:{call}" for call in ("getsid", "getpgid", "sched_yield", "getresuid")]
abi, more = sys.argv[1], int(sys.argv[2])
with Session(abi=abi) as session:
    # Imports, and what is created once, need no descriptor later.
    session.detach(session.attach(calls), commit=True)
    # Occupy free numbers below the highest one, which the limit would not refuse.
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    while os.dup(0) < highest:
        pass
    here = len(os.listdir("/proc/self/fd")) - 1
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + more, before[1]))
    try:
        probes = session.attach(calls)
    except (BatchprobeError, OSError) as error:
        probes = []
        assert "EMFILE" in str(error) or "Too many open files" in str(error) or all(
            "EMFILE" in str(skip) for skip in session.skipped
        ), error
    os.getsid(0)
    counted = [probe.count for probe in probes if probe.label == "syscall:getsid"]
    assert counted in ([], [1]), counted
    assert session.detach_all().failed == ()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(os.listdir("/proc/self/fd")) - 1 == here
print(len(probes))
"""


@pytest.mark.parametrize("abi", ABIS)
def test_few_descriptors(abi: str) -> None:
    """Probes that are attached count, and an attach that fails leaves no descriptor open."""
    attached = [int(stdout_of(FEW_FILES, abi, str(more))) for more in (0, 3, 9, 13, 15, 40)]
    assert attached[0] == 0
    assert attached[-1] == 4


def test_an_event_that_another_tool_enabled(tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("syscall:getsid\n")
    with Running("attach", few, "-i", "0.1", "--json", "--abi", "event") as running:
        running.until_line("counts")
        guardian = running.until_child(GUARDIAN)
        (line,) = our_events(running.pid)
        event = line.split()[0].partition(":")[2]
        enable = TRACEFS / "events" / event / "enable"
        enable.write_text("1")
        running.signal(signal.SIGINT)
        done = running.finish()
        assert done.status == 5, done
        (failure,) = done.summary["commit"]["left_behind"]
        assert event in failure
        assert "EBUSY" in failure
        assert event in done.stderr
        enable.write_text("0")
        # The guardian was waiting for that.
        eventually(lambda: not our_events(), "the guardian removes the event")
        eventually(lambda: not Path(f"/proc/{guardian}").exists(), "the guardian ends")


def test_missing_capabilities_are_reported() -> None:
    dropped = "-sys_admin,-bpf,-perfmon"
    less = ("setpriv", "--bounding-set", dropped, "--inh-caps", dropped)
    done = run("attach", "-", "-d", "0", stdin="syscall:getsid\n", before=less)
    assert done.status == 77, done
    assert "CAP_BPF" in done.stderr
    assert "Traceback" not in done.stderr


def test_little_locked_memory_is_reported_by_old_kernels() -> None:
    """Before Linux 5.11 maps are charged to a limit that only CAP_SYS_RESOURCE may raise."""
    dropped = "-sys_resource"
    less = (
        *("prlimit", "--memlock=8192"),
        *("setpriv", "--bounding-set", dropped, "--inh-caps", dropped),
    )
    done = run("attach", "-", "-d", "0", "--json", stdin="syscall:getsid\n", before=less)
    if RELEASE < (5, 11):
        assert done.status == 77, done
        assert "CAP_SYS_RESOURCE" in done.stderr
    else:
        assert done.status == 0, done
