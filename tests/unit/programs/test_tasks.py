# SPDX-License-Identifier: Apache-2.0
"""Trace events of the scheduler, and families of processes."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import threading

import pytest
from fake_maps import FakeArray

from batchprobe.errors import KernelError
from batchprobe.programs import process_tree
from batchprobe.programs.maps import MapSpec
from batchprobe.programs.process_tree import ProcessTree, family
from batchprobe.programs.tasks import _field_at

# bpf/tree.h
IN_TREE, SPAWNS = 1, 4
# /sys/kernel/tracing/events/sched/sched_process_fork/format, Linux 6.1.
FORMAT = """name: sched_process_fork
ID: 318
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char parent_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t parent_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:char child_comm[16];\toffset:28;\tsize:16;\tsigned:0;
\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;

print fmt: "comm=%s pid=%d child_comm=%s child_pid=%d", REC->parent_comm, REC->parent_pid
"""


def test_a_field_is_found_by_its_whole_name() -> None:
    assert _field_at(FORMAT, "child_pid") == 44
    assert _field_at(FORMAT, "parent_pid") == 24
    with pytest.raises(KernelError):
        _field_at(FORMAT, "pid")


def test_a_family_has_all_threads_of_all_descendants() -> None:
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    script = "sleep 100 & echo $!; wait"
    with subprocess.Popen(("sh", "-c", script), stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        try:
            threads = family({os.getpid()})
            assert {os.getpid(), thread.native_id, shell.pid, grandchild} <= threads
            assert family({shell.pid}) == {shell.pid, grandchild}
            assert family({2**30}) == set()
        finally:
            os.kill(grandchild, signal.SIGKILL)
            wait.set()
    thread.join()


class Cells(FakeArray):
    """An array of one element."""

    fd = -1

    def __init__(self, spec: MapSpec) -> None:
        super().__init__(spec.entries)

    def close(self) -> None:
        """Unmap it."""
        self.cells.release()


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """The map of a tree that no program maintains."""
    states: dict[int, int] = {}

    def update(_fd: int, key: bytes, value: bytes) -> None:
        states[struct.unpack("=Q", key)[0]] = struct.unpack("=Q", value)[0]

    def lookup(_fd: int, key: bytes, _size: int) -> bytes | None:
        state = states.get(struct.unpack("=Q", key)[0])
        return None if state is None else struct.pack("=Q", state)

    monkeypatch.setattr("batchprobe.sys.bpf.map_update", update)
    monkeypatch.setattr("batchprobe.sys.bpf.map_lookup", lookup)
    return states


def test_a_thread_that_spawns_is_no_member(tree: ProcessTree, states: dict[int, int]) -> None:
    me = threading.get_native_id()
    with tree.spawning():
        assert states[me] == SPAWNS
        with tree.spawning():
            pass
        # Those that the outer block starts still count.
        assert states[me] == SPAWNS
    assert states[me] == 0


def test_a_member_that_spawns_stays_one(tree: ProcessTree, states: dict[int, int]) -> None:
    """Its own hits count all the time, and its children from their fork on."""
    me = threading.get_native_id()
    tree.add([], [me])
    with tree.spawning():
        assert states[me] == IN_TREE
    assert states[me] == IN_TREE


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> ProcessTree:
    """One that no program maintains, and whose map has no room."""

    def is_full(*_: object) -> None:
        raise KernelError("bpf(BPF_MAP_UPDATE_ELEM)", errno.E2BIG)

    monkeypatch.setattr(process_tree, "Cells", Cells)
    monkeypatch.setattr(process_tree, "lift_memlock_limit", lambda: None)
    monkeypatch.setattr("batchprobe.sys.bpf.map_create", lambda *_, **__: -1)
    monkeypatch.setattr("batchprobe.sys.bpf.map_update", is_full)
    monkeypatch.setattr(ProcessTree, "_follow", lambda *_: None)
    return ProcessTree()


def test_threads_that_live_already_are_lost_where_there_is_no_room(tree: ProcessTree) -> None:
    tree.add([os.getpid()], [1, 2])
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    assert tree.lost == threads + 2
    assert tree._lost is not None
    tree._lost.cells[0] = 3
    assert tree.lost == threads + 5
    tree.close()
    assert tree.lost == threads + 5


def test_what_was_lost_is_known_after_the_end(tree: ProcessTree) -> None:
    assert tree._lost is not None
    tree._lost.cells[0] = 3
    assert tree.lost == 3
    tree.close()
    assert tree.lost == 3
    tree.close()
    assert tree.lost == 3
