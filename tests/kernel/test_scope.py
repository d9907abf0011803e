# SPDX-License-Identifier: Apache-2.0
"""Filters count exactly the hits of those they name, while others make the same calls."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import run
from helpers.machine import ABIS, RELEASE, eventually
from helpers.tree import CALLS, SCRIPT
from helpers.uring import FALLOCATES
from helpers.uring import SCRIPT as URING
from helpers.workers import Worker

from batchprobe import Filter, Session, UnsupportedError
from batchprobe.filters.cgroup import Cgroup, mount_point
from batchprobe.filters.children import Children
from batchprobe.filters.comm import Comm
from batchprobe.filters.cpu import Cpu
from batchprobe.filters.netns import NetNamespace
from batchprobe.filters.pid import Pid, Tid
from batchprobe.filters.uid import Uid
from batchprobe.kernel.host import check_btf

CALL = "syscall:getsid"
PYTHON = shlex.quote(sys.executable)
HAS_BTF = check_btf()[0].value == "ok"


@pytest.fixture
def noise(workers: list[Worker]) -> Iterator[Worker]:
    """A neighbour that makes the same calls all the time."""
    workers[1].begin(["getsid"])
    workers[1].reach(10)
    yield workers[1]
    workers[1].end()


def counted(filters: list[Filter], worker: Worker, rounds: int, abi: str = "auto") -> int:
    """What is counted of so many calls of the worker."""
    with Session(filters=filters, abi=abi) as session:
        (probe,) = session.attach([CALL])
        worker.call(["getsid"], rounds)
        session.detach_all()
    return probe.count


@pytest.mark.parametrize("abi", ABIS)
def test_processes_and_threads(abi: str, workers: list[Worker], noise: Worker) -> None:
    one, other = workers[0], noise
    assert counted([Pid(one.pid)], one, 100, abi) == 100
    assert counted([Pid(os.getpid(), one.pid)], one, 50, abi) == 50
    assert counted([Tid(one.pid)], one, 30, abi) == 30
    assert counted([Pid(os.getpid())], one, 20, abi) == 0
    assert counted([Pid(one.pid), Tid(other.pid)], one, 20, abi) == 0


def test_all_threads_of_a_process() -> None:
    with Session(filters=[Pid(os.getpid())]) as session:
        (probe,) = session.attach([CALL])
        threads = [threading.Thread(target=os.getsid, args=(0,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.detach_all()
    assert probe.count == 4


@pytest.mark.parametrize(("name", "hits"), [("a-name-of-its-own", 40), ("a-name-of", 0)])
def test_names(name: str, hits: int, noise: Worker) -> None:
    # The kernel keeps 15 bytes.
    code = (
        "import os\nopen('/proc/self/comm', 'w').write('a-name-of-its-own')\n"
        "for _ in range(40): os.getsid(0)"
    )
    with Session(filters=[Comm("someone", name)]) as session:
        (probe,) = session.attach([CALL])
        subprocess.run((sys.executable, "-I", "-S", "-c", code), check=True)
        session.detach_all()
    assert probe.count == hits


def test_users(noise: Worker) -> None:
    code = "import os\nos.setuid(12345)\nfor _ in range(60): os.getsid(0)"
    with Session(filters=[Uid(12345, 4)]) as session:
        (probe,) = session.attach([CALL])
        subprocess.run((sys.executable, "-I", "-S", "-c", code), check=True)
        session.detach_all()
    assert probe.count == 60


def test_cpus(workers: list[Worker], noise: Worker) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU")
    assert counted([Cpu(cpus[0])], workers[0], 70) == 70
    with pytest.raises(ValueError, match="no CPU 4096"):
        Cpu(4096)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup."""
    mounted = None
    try:
        root = Path(mount_point())
    except UnsupportedError:
        root = mounted = Path("/sys/fs/cgroup")
        subprocess.run(("mount", "-t", "cgroup2", "none", str(root)), check=True)
    folder = root / "batchprobe-test.slice"
    folder.mkdir()
    yield folder
    for inner in (*folder.glob("*/"), folder):
        eventually(lambda f=inner: _removed(f), f"{inner} is empty")  # type: ignore[misc]
    if mounted is not None:
        subprocess.run(("umount", str(mounted)), check=True)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def test_cgroups_with_what_comes_later(cgroup: Path, noise: Worker) -> None:
    code = (
        "import os, sys\n"
        "for folder in sys.argv[1:]:\n"
        "    os.makedirs(folder, exist_ok=True)\n"
        "    open(folder + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "    for _ in range(25): os.getsid(0)\n"
    )
    inner = cgroup / "later.service"
    with Session(filters=[Cgroup(str(cgroup))]) as session:
        (probe,) = session.attach([CALL])
        command = (sys.executable, "-I", "-S", "-c", code, str(cgroup), str(inner))
        subprocess.run(command, check=True)
        session.detach_all()
    assert probe.count == 50
    done = run("attach", "--json", "--unit", "later", CALL, "-d", "0")
    assert done.status == 0, done
    assert run("attach", "--unit", "absent", CALL, "-d", "0").status == 2
    with pytest.raises(ValueError, match="is no cgroup"):
        Cgroup("/proc")


def test_network_namespaces(noise: Worker) -> None:
    mine = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116
    if not HAS_BTF:
        with Session(filters=[NetNamespace(mine)]) as session, pytest.raises(UnsupportedError):
            session.attach([CALL])
        return
    code = "import os\nfor _ in range(35): os.getsid(0)"
    python = (sys.executable, "-I", "-S", "-c", code)
    held = subprocess.Popen(("unshare", "-n", "sleep", "1000"))
    try:
        eventually(lambda: _netns(held.pid) != mine, "a namespace")
        with Session(filters=[NetNamespace(_netns(held.pid))]) as session:
            (probe,) = session.attach([CALL])
            subprocess.run(python, check=True)
            subprocess.run(("nsenter", "-t", str(held.pid), "-n", *python), check=True)
            session.detach_all()
        assert probe.count == 35
    finally:
        held.kill()
        held.wait()


def _netns(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116


@pytest.mark.parametrize("abi", ABIS)
def test_a_command_with_all_its_descendants(abi: str, noise: Worker) -> None:
    followed = Children()
    with Session(filters=[followed], abi=abi) as session:
        (probe,) = session.attach([CALL])
        # Not followed: it was started outside of the block.
        subprocess.run((sys.executable, SCRIPT), check=True)
        with followed.spawning():
            child = subprocess.Popen((sys.executable, SCRIPT))
        assert child.wait() == 0
        subprocess.run((sys.executable, SCRIPT), check=True)
        session.detach_all()
    assert probe.count == CALLS
    assert followed.lost == 0


def test_descendants_of_a_process_that_runs_already(noise: Worker) -> None:
    with subprocess.Popen(
        # Without the second command, the shell would become the first.
        ("sh", "-c", f"{PYTHON} {shlex.quote(SCRIPT)} wait; true"),
        stdin=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        eventually(lambda: _children(parent.pid), "a child")
        with Session(filters=[Pid(parent.pid), Children()]) as session:
            (probe,) = session.attach([CALL])
            parent.stdin.write("\n")
            parent.stdin.flush()
            parent.wait()
            session.detach_all()
    assert probe.count == CALLS


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_command_counts_its_own(noise: Worker) -> None:
    command = f"{PYTHON} {SCRIPT}"
    done = run("attach", "--json", CALL, "-c", command)
    assert done.status == 0, done
    assert done.summary["hits"] == {CALL: CALLS}
    done = run("attach", "-v", CALL, "-c", f"sh -c 'sleep 0.1; {PYTHON} {SCRIPT}; exit 3'")
    assert done.status == 3, done
    assert re.search(r"[0-9]{2} processes followed", done.stderr), done
    for line in (r"\d+ sh, child of \d+: exit status 3", r"\d+ sleep, .*: exit status 0"):
        assert re.search(line, done.stderr), done
    done = run("attach", "--json", CALL, "--all", "-c", command)
    assert done.summary["hits"][CALL] > CALLS


@pytest.mark.skipif(RELEASE < (5, 12), reason="io_uring's workers are threads of no process")
def test_what_io_uring_does_for_the_command() -> None:
    done = run("attach", "--json", "vfs_fallocate", "-c", f"{PYTHON} {URING}")
    assert done.status == 0, done
    assert done.summary["hits"] == {"vfs_fallocate": FALLOCATES}


def test_the_command_ends_with_its_process() -> None:
    with subprocess.Popen(("sleep", "1000")) as process:
        threading.Timer(3, process.kill).start()
        began = time.monotonic()
        done = run("attach", "--json", CALL, "-p", str(process.pid))
        assert done.status == 0, done
        assert time.monotonic() - began > 2
    assert done.summary["hits"] == {CALL: 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "999999999"), "no such process"),
        (("--tid", "999999999"), "no such thread"),
        (("--children",), "whose?"),
        (("-a", "-p", "1"), "--all counts the whole machine"),
        (("-c", "true", "-p", "1"), "leave out --pid"),
        (("--uid", "nobody-knows-them"), "no such user"),
        (("--cpu", "3-1"), "ends before it begins"),
        (("--cpu", "all"), "is no list of CPUs"),
        (("--cgroup", "/proc"), "is no cgroup"),
        (("--netns", "nobody-made-it"), "nobody-made-it"),
    ],
)
def test_what_cannot_be_meant(arguments: tuple[str, ...], words: str) -> None:
    done = run("attach", CALL, "-d", "0", *arguments)
    assert done.status == 2, done
    assert words in done.stderr
