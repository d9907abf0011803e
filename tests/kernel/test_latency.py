# SPDX-License-Identifier: Apache-2.0
"""Calls of known number and length: nested, recursive, concurrent, unfinished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import run
from helpers.machine import ABIS, BCC_COMPILES, PREFIX, RELEASE, eventually, kinds, setting
from helpers.workers import CALLS, Worker

from batchprobe import Probe, Session
from batchprobe.actions.latency import CallTimes, Latency
from batchprobe.attach.attacher import Attacher
from batchprobe.attach.kprobe_session import SessionAttachment
from batchprobe.filters.children import Children
from batchprobe.filters.pid import Pid
from batchprobe.sys import bpf

MS = 1_000_000
# On 32-bit machines, Debian 12 makes the system calls with 32-bit times.
TIME32 = "_time32" if sys.maxsize < 1 << 32 else ""
WAIT = f"syscall:rt_sigtimedwait{TIME32}"
SLEEP = f"syscall:clock_nanosleep{TIME32}"


# Debian's kernels of other architectures have no BTF.
HAS_SESSIONS = "multi" in ABIS and RELEASE >= (6, 10) and Path("/sys/kernel/btf/vmlinux").exists()


def attached(session: Session, *entries: str) -> dict[str, Probe]:
    return {probe.label: probe for probe in session.attach(entries)}


def measuring(abi: str) -> Session:
    """A session that measures the calls of this process and of its children."""
    return Session(action=Latency(), abi=abi, filters=[Pid(os.getpid()), Children()])


def links() -> int:
    """The kprobe_multi links of this process."""
    files = Path("/proc/self/fdinfo").iterdir()
    # The last one is the folder's own descriptor, which is closed by now.
    return sum("probe_multi" in file.read_text() for file in files if file.exists())


def without_sessions(patch: pytest.MonkeyPatch) -> None:
    """The kernel's sessions are passed over."""
    calibrated = Attacher._calibrated
    patch.setattr(
        Attacher,
        "_calibrated",
        lambda *args: calibrated(*args).with_changes(session_is_return=0),
    )


@pytest.fixture(params=("auto", *ABIS, *(["two links"] if HAS_SESSIONS else ())))
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Measures with each ABI, and with a link for each end of the calls."""
    abi = request.param
    if abi == "two links":
        without_sessions(monkeypatch)
        abi = "multi"
    if "%return" not in kinds(abi):
        pytest.skip("this kernel refuses return probes, which stand at the entry")
    with measuring(abi) as session:
        yield session


@contextmanager
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is inside rt_sigtimedwait(2), until it gets SIGUSR1."""
    code = "import signal\nprint(flush=True)\nsignal.sigwait({signal.SIGUSR1})"
    # A child inherits the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    python = (sys.executable, "-I", "-S", "-c", code)
    process = subprocess.Popen(python, stdout=subprocess.PIPE)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    try:
        assert process.stdout is not None
        process.stdout.readline()
        eventually(lambda: _sleeps(process.pid), "it waits")
        yield process
    finally:
        process.kill()
        process.communicate()


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def check(times: CallTimes) -> None:
    """What must hold of any values."""
    assert sum(times.histogram.values()) == times.calls
    assert times.self_ns <= times.total_ns
    assert times.max_ns <= times.total_ns
    assert times.quantile(0) <= times.quantile(0.5) <= times.quantile(1) <= times.max_ns


def test_calls_are_counted_and_last_as_long_as_they_do(session: Session) -> None:
    probes = attached(session, WAIT, "syscall:getsid")
    assert not session.skipped
    for _ in range(20):
        signal.sigtimedwait([], 0.05)
    for _ in range(1_000):
        os.getsid(0)
    report = session.detach_all()
    assert report.barriers == 1
    slept, quick = probes[WAIT].value, probes["syscall:getsid"].value
    check(slept)
    check(quick)
    assert (slept.calls, slept.unfinished, slept.missed, slept.dropped) == (20, 0, 0, 0)
    assert 20 * 50 * MS <= slept.total_ns < 20 * 500 * MS
    assert slept.quantile(0.5) >= 32 * MS
    assert set(slept.histogram) <= {1 << at for at in range(25, 30)}
    assert (quick.calls, quick.unfinished) == (1_000, 0)
    assert quick.average_ns < 5 * MS
    assert session.lost() == 0


def test_self_time_is_without_the_traced_callees(session: Session) -> None:
    """A system call, and the function that does its work, both sleep in the second."""
    probes = attached(session, SLEEP, "hrtimer_nanosleep")
    for _ in range(10):
        time.sleep(0.05)
    session.detach_all()
    outer = probes[SLEEP].value
    inner = probes["hrtimer_nanosleep"].value
    check(outer)
    check(inner)
    assert outer.calls == inner.calls == 10
    assert inner.self_ns == inner.total_ns
    # Nothing is lost between the two, to the nanosecond.
    assert outer.self_ns == outer.total_ns - inner.total_ns
    assert outer.self_ns < inner.total_ns / 2


def test_concurrent_calls_do_not_mix(session: Session, workers: list[Worker]) -> None:
    (probe, *_) = session.attach([f"syscall:{call}" for call in CALLS])
    for worker in workers:
        worker.begin(CALLS, rounds=300)
    for worker in workers:
        assert worker.finish() == 300
    threads = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = session.snapshot()
    session.detach_all()
    for probe in values:
        check(probe.value)
        assert probe.value.calls == 600
        assert (probe.value.unfinished, probe.value.missed) == (0, 0)


def test_sleeping_threads_do_not_mix(session: Session) -> None:
    probes = attached(session, "hrtimer_nanosleep")
    is_session = links() == 1
    threads = [threading.Thread(target=time.sleep, args=(0.1 * n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.detach_all()
    times = probes["hrtimer_nanosleep"].value
    check(times)
    if probes["hrtimer_nanosleep"].abi != "event" and times.calls < 8:
        # Before Linux 6.14 a link of one function follows two calls for each CPU, and a perf
        # kprobe without preemption one.
        # A session sees no entry of a call that it cannot follow.
        entered = times.calls + times.unfinished + times.missed
        assert entered == (times.calls if is_session else 8)
        assert session.missed() in (None, 8 - times.calls)
        return
    assert times.calls == 8
    assert 3_500 * MS <= times.total_ns < 8_000 * MS
    assert 780 * MS <= times.max_ns < 2_000 * MS


def test_calls_that_are_still_running_are_not_counted(session: Session) -> None:
    with waiting() as early:
        probes = attached(session, WAIT)
        with waiting() as late:
            # The return of a call that began before the attach.
            early.send_signal(signal.SIGUSR1)
            assert early.wait() == 0
            assert late.poll() is None
            session.detach_all()
    times = probes[WAIT].value
    assert (times.calls, times.unfinished, times.missed) == (0, 1, 0)


def test_tasks_that_die_inside(session: Session) -> None:
    """They leave nothing behind that later tasks of the same ID would find."""
    probes = attached(session, "do_exit", "syscall:getsid")
    for _ in range(30):
        subprocess.run(("true",), check=True)
    os.getsid(0)
    session.detach_all()
    times = probes["do_exit"].value
    assert times.calls == 0
    assert times.unfinished + times.missed >= 30
    assert probes["syscall:getsid"].value.calls == 1


@pytest.mark.parametrize("abi", ABIS)
def test_a_thread_that_is_not_the_leader_calls_execve(abi: str) -> None:
    """The kernel gives it the leader's ID, and it takes its open calls along."""
    if "%return" not in kinds(abi):
        pytest.skip("this kernel refuses return probes, which stand at the entry")
    code = (
        "import os, threading\n"
        "threading.Thread(target=os.execv, args=('/bin/true', ['true'])).start()\n"
        "threading.Event().wait()"
    )
    followed = Children()
    with Session(action=Latency(), abi=abi, filters=[followed]) as session:
        probes = attached(session, "syscall:execve")
        # Counts from its own execve(2) on, whose entry does not.
        with followed.spawning():
            child = subprocess.Popen((sys.executable, "-I", "-S", "-c", code))
        assert child.wait() == 0
        session.detach_all()
    times = probes["syscall:execve"].value
    assert (times.calls, times.unfinished, times.missed) == (1, 0, 0)


def test_half_of_it_is_detached_in_mid_run(session: Session, workers: list[Worker]) -> None:
    probes = session.attach([f"syscall:{call}" for call in CALLS])
    for worker in workers:
        worker.begin(CALLS)
        worker.reach(50)
    gone, stays = probes[::2], probes[1::2]
    session.detach(gone, commit=True)
    finals = {probe: (probe.value.calls, probe.value.total_ns) for probe in gone}
    for worker in workers:
        worker.reach(50)
    rounds = sum(worker.end() for worker in workers)
    session.detach_all()
    for probe in gone:
        check(probe.value)
        assert (probe.value.calls, probe.value.total_ns) == finals[probe]
        assert 100 <= probe.value.calls < rounds
        assert probe.value.unfinished <= 2
    for probe in stays:
        check(probe.value)
        assert (probe.value.calls, probe.value.unfinished) == (rounds, 0)


def test_a_detached_function_gets_no_more_returns(session: Session) -> None:
    probes = attached(session, WAIT, "syscall:getsid")
    with waiting() as process:
        session.detach(probes[WAIT], commit=True)
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 0
    session.detach_all()
    times = probes[WAIT].value
    assert (times.calls, times.unfinished, times.missed) == (0, 1, 0)


@pytest.mark.skipif(not HAS_SESSIONS, reason="this kernel has no kprobe sessions")
@pytest.mark.parametrize("is_refused", [False, True])
def test_one_link_sees_both_ends(is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that refuses it gets a link for each end."""
    if is_refused:
        # The kernel function is for programs of sessions only.
        attach_type = bpf.BPF_TRACE_KPROBE_MULTI
        monkeypatch.setattr(SessionAttachment, "attach_type", attach_type)
    with measuring("multi") as session:
        probes = attached(session, "syscall:getsid", WAIT)
        assert links() == (2 if is_refused else 1)
        for _ in range(100):
            os.getsid(0)
        session.detach_all()
    times = probes["syscall:getsid"].value
    check(times)
    assert (times.calls, times.unfinished, times.missed, times.dropped) == (100, 0, 0, 0)


@pytest.mark.skipif(not HAS_SESSIONS, reason="this kernel has no kprobe sessions")
def test_a_rejected_entry_has_no_return(workers: list[Worker]) -> None:
    """By the kernel's count of the program's runs."""
    filters = [Pid(os.getpid())]
    with (
        setting("/proc/sys/kernel/bpf_stats_enabled", "1"),
        Session(action=Latency(), abi="multi", filters=filters) as session,
    ):
        session.attach(["syscall:getsid"])
        workers[0].begin(["getsid"], rounds=300)
        assert workers[0].finish() == 300
        for _ in range(100):
            os.getsid(0)
        shown = subprocess.run(("bpftool", "-j", "prog", "show"), capture_output=True, check=True)
        [program] = (one for one in json.loads(shown.stdout) if one.get("name") == "by_session")
    assert program["run_cnt"] == 300 + 2 * 100


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A file of an overlay, which is one of the file system below."""
    folders = {name: tmp_path / name for name in ("lowerdir", "upperdir", "workdir", "merged")}
    for folder in folders.values():
        folder.mkdir()
    merged = folders.pop("merged")
    options = ",".join(f"{name}={folder}" for name, folder in folders.items())
    mount = ("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no overlay here: {done.stderr}")
    file = merged / "file"
    file.touch()
    yield file
    subprocess.run(("umount", str(merged)), check=True)


def test_recursion(session: Session, overlay: Path) -> None:
    """A change of mode in an overlay calls the same function again, for the file below."""
    (probe,) = session.attach(["notify_change"])
    for at in range(50):
        overlay.chmod(0o600 + at % 2)
    session.detach_all()
    times = probe.value
    check(times)
    assert (times.calls, times.unfinished, times.missed, times.dropped) == (100, 0, 0, 0)
    # Both calls have the time of the inner one, and it is nobody's but the inner one's.
    assert times.total_ns / 2 < times.self_ns < times.total_ns


BY_BCC = """
#include <uapi/linux/ptrace.h>
BPF_HASH(began, u64, u64);
BPF_ARRAY(sums, u64, 2);
int entry(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
	began.update(&id, &now);
	return 0;
}
int back(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns(), *start = began.lookup(&id);
	if (start) {
		sums.increment(0);
		sums.increment(1, now - *start);
	}
	return 0;
}
"""


@pytest.mark.skipif(not BCC_COMPILES, reason="bcc compiles nothing on this machine")
def test_as_bcc_measures_it(session: Session) -> None:
    """Its probes are around ours, or ours around its: the difference is what one of them adds."""
    bcc = pytest.importorskip("bcc").BPF(text=BY_BCC)
    function = f"{PREFIX}rt_sigtimedwait{TIME32}"
    bcc.attach_kprobe(event=function, fn_name="entry")
    bcc.attach_kretprobe(event=function, fn_name="back")
    try:
        probes = attached(session, WAIT)
        for _ in range(20):
            signal.sigtimedwait([], 0.05)
        session.detach_all()
        calls, theirs = (bcc["sums"][at].value for at in range(2))
    finally:
        bcc.cleanup()
    times = probes[WAIT].value
    assert times.calls == calls == 20
    assert 0.97 < times.total_ns / theirs < 1.03


def test_the_command() -> None:
    done = run("latency", "--json", "hrtimer_nanosleep", "-c", "sleep 0.3")
    assert done.status == 0, done
    times = done.summary["functions"]["hrtimer_nanosleep"]
    assert (times["calls"], times["unfinished"], times["missed"]) == (1, 0, 0)
    assert 300 * MS <= times["total_ns"] < 3_000 * MS
    done = run("latency", "--histogram", "hrtimer_nanosleep", "-c", "sleep 0.3")
    assert done.status == 0, done
    assert "CALLS" in done.stdout
    assert "hrtimer_nanosleep" in done.stdout
