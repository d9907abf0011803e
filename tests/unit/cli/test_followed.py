# SPDX-License-Identifier: Apache-2.0
"""Processes as this machine's kernel reports them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from batchprobe.cli.followed import Followed, FollowedProcesses

PATIENCE_SECONDS = 20


@pytest.fixture
def followed() -> Iterator[FollowedProcesses]:
    with FollowedProcesses() as opened:
        assert opened.wait(PATIENCE_SECONDS)
        if opened.unavailable:
            pytest.skip(opened.unavailable)
        yield opened


def eventually(check: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def run(followed: FollowedProcesses, *command: str) -> list[Followed]:
    """Run a command; returns it and its descendants when they have ended."""
    # It waits until it is followed.
    with subprocess.Popen(("sh", "-c", 'read go; exec "$@"', "sh", *command), stdin=-1) as child:
        followed.follow(child.pid)
        child.communicate(b"\n", PATIENCE_SECONDS)

    def found() -> list[Followed]:
        tree = [child.pid]
        for one in followed.processes():
            if one.parent in tree:
                tree.append(one.pid)
        return [one for one in followed.processes() if one.pid in tree]

    eventually(lambda: all(one.has_ended for one in found()))
    return found()


def test_names_and_statuses_of_a_tree(followed: FollowedProcesses) -> None:
    script = "sleep 0.1; (sleep 0.1; exit 3); sh -c 'sleep 0.1; kill -9 $$'; exit 7"
    sh, sleep, subshell, inner, killed, last = run(followed, "sh", "-c", script)
    assert (sh.parent, sh.comm, sh.status) == (os.getpid(), "sh", 7)
    assert (sleep.parent, sleep.comm, sleep.status) == (sh.pid, "sleep", 0)
    assert (subshell.parent, subshell.comm, subshell.status) == (sh.pid, "sh", 3)
    assert (inner.parent, inner.comm, inner.status) == (subshell.pid, "sleep", 0)
    assert (killed.parent, killed.status) == (sh.pid, 137)
    assert (last.parent, last.comm, last.status) == (killed.pid, "sleep", 0)
    assert followed.overruns == followed.not_kept == 0


def test_a_name_may_be_any_bytes(followed: FollowedProcesses) -> None:
    name = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'\\xff)\\n'); time.sleep(0.2)"
    (python,) = run(followed, sys.executable, "-c", name)
    assert python.comm == "\ufffd)\n"
    assert python.status == 0


def test_threads_are_no_processes(followed: FollowedProcesses) -> None:
    code = (
        "import threading as t, os; t.Thread(target=os._exit, args=[5]).start(); t.Event().wait()"
    )
    (python,) = run(followed, sys.executable, "-c", code)
    assert python.status == 5


def test_what_runs_already_is_found() -> None:
    script = "sleep 60 & echo; read go"
    with subprocess.Popen(("sh", "-c", script), stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with FollowedProcesses([child.pid]) as followed:
            followed.wait(PATIENCE_SECONDS)
            if followed.unavailable:
                pytest.skip(followed.unavailable)
            eventually(lambda: followed.processes()[-1].comm == "sleep")
            sh, sleep = followed.processes()
            assert (sh.pid, sh.comm, sh.has_ended) == (child.pid, "sh", False)
            assert (sleep.parent, sleep.status) == (child.pid, None)
            os.kill(sleep.pid, 15)
            child.communicate(b"\n", PATIENCE_SECONDS)
            eventually(lambda: all(one.has_ended for one in followed.processes()))
    assert [one.status for one in followed.processes()][1] == 143


def test_a_command_that_ended_before_it_is_followed(followed: FollowedProcesses) -> None:
    with subprocess.Popen(("sh", "-c", "exit 3")) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        followed.follow(child.pid)
    (sh,) = followed.processes()
    assert (sh.comm, sh.has_ended) == ("sh", True)
    if os.geteuid() == 0:
        assert sh.status == 3


def test_lost_messages_are_made_good(followed: FollowedProcesses) -> None:
    """While nothing is read, the socket's buffer overruns."""
    script = "read go; i=0; while [ $i -lt 4000 ]; do (:); i=$((i+1)); done; sleep 60 & read go"
    with subprocess.Popen(("sh", "-c", script), stdin=-1) as child:
        assert child.stdin is not None
        followed.follow(child.pid)
        with followed._lock:
            os.write(child.stdin.fileno(), b"\n")
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
            if not children.exists():
                pytest.skip("this kernel does not list children (CONFIG_PROC_CHILDREN)")
            eventually(lambda: any(comm(pid) == "sleep" for pid in children.read_text().split()))
        eventually(lambda: followed.overruns > 0)
        eventually(lambda: followed.processes()[-1].comm == "sleep")
        sh, *ended, sleep = followed.processes()
        assert not sh.has_ended
        assert not sleep.has_ended
        eventually(lambda: all(one.has_ended for one in followed.processes()[1:-1]))
        assert len(ended) < 4000
        os.kill(sleep.pid, 15)
        child.communicate(b"\n", PATIENCE_SECONDS)
        eventually(lambda: followed.processes()[-1].status == 143)


def comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_what_was_found_stays_and_nothing_stays_open(followed: FollowedProcesses) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with FollowedProcesses([os.getpid()]) as other:
        other.wait(PATIENCE_SECONDS)
    other.close()
    assert [one.pid for one in other.processes()][:1] == [os.getpid()]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [thread.name for thread in threading.enumerate()].count("followed processes") == 1


@pytest.mark.parametrize(
    "namespaces", [("--net",), ("--pid", "--fork"), ("--user", "--map-root-user")]
)
def test_outside_the_initial_namespaces_there_is_a_reason(namespaces: Sequence[str]) -> None:
    code = (
        "import os; from batchprobe.cli.followed import FollowedProcesses\n"
        "with FollowedProcesses([os.getpid()]) as followed:\n"
        "    followed.wait(); print(followed.unavailable, followed.processes())"
    )
    command = ("unshare", *namespaces, sys.executable, "-c", code)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("processes are not followed: the kernel reports processes only ")
    assert done.stdout.endswith(" []\n")
