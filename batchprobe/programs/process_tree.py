# SPDX-License-Identifier: Apache-2.0
"""ProcessTree: follows processes and all their descendants in the kernel, thread by thread.

Programs maintain a map from thread ID to state (bpf/tree.c), which bpf/scope.h looks at.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import get_native_id

from batchprobe.errors import KernelError
from batchprobe.programs.maps import CELL_SIZE, Cells, MapSpec, lift_memlock_limit
from batchprobe.programs.tasks import TaskPrograms
from batchprobe.sys import bpf, fds
from batchprobe.sys.files import read_bytes

__all__ = ["MAP", "ProcessTree", "family"]

MAP = "tree"
"""The map of thread IDs, as bpf/scope.h knows it."""
# bpf/tree.h
_IN_TREE, _SPAWNS = 1, 4
# Threads of the tree that live at one time, or have not been freed yet.
_MAX_THREADS = 1 << 16


class ProcessTree:
    """The threads whose hits count. Raises UnsupportedError or KernelError where the kernel cannot
    follow processes.
    """

    def __init__(self) -> None:
        lift_memlock_limit()
        self._tasks: TaskPrograms | None = None
        self.fd = bpf.map_create(
            MAP,
            bpf.BPF_MAP_TYPE_HASH,
            key_size=CELL_SIZE,
            value_size=CELL_SIZE,
            entries=_MAX_THREADS,
        )
        self._lost: Cells | None = None
        # Not in `_lost`, which programs write to at the same time.
        self._lost_here = 0
        try:
            self._lost = Cells(MapSpec.array("tree_lost", 1))
            self._follow(self._lost.fd)
        except BaseException:
            self.close()
            raise

    def _follow(self, lost: int) -> None:
        tasks = self._tasks = TaskPrograms({MAP: self.fd, "tree_lost": lost})
        tasks.run("tree_exec", "sched_process_exec")
        tasks.run("tree_exit", "sched_process_exit")
        tasks.run_with_pid("tree_newtask", "task_newtask", "pid", group="task")
        tasks.run_with_pid("tree_free", "sched_process_free", "pid")

    def add(self, pids: Iterable[int], tids: Iterable[int] = ()) -> None:
        """Add processes with all descendants that live now, and single threads."""
        for tid in tids:
            self._add(tid)
        pids, known = set(pids), set[int]()
        # Whoever is added is followed. Others may have had children since we looked.
        while new := family(pids) - known:
            for tid in new:
                self._add(tid)
            known |= new

    def _add(self, tid: int) -> None:
        try:
            self._set(tid, _IN_TREE)
        except KernelError as error:
            if error.errno != errno.E2BIG:
                raise
            self._lost_here += 1

    @contextmanager
    def spawning(self) -> Iterator[None]:
        """Processes that this thread starts in the block join the tree when they call execve(2)."""
        me = get_native_id()
        before = self._state(me)
        if before & _IN_TREE:
            # What it starts belongs to the tree from its fork on.
            yield
            return
        self._set(me, before | _SPAWNS)
        try:
            yield
        finally:
            self._set(me, before)

    def _state(self, tid: int) -> int:
        value = bpf.map_lookup(self.fd, struct.pack("=Q", tid), CELL_SIZE)
        return 0 if value is None else int(struct.unpack("=Q", value)[0])

    def _set(self, tid: int, state: int) -> None:
        bpf.map_update(self.fd, struct.pack("=Q", tid), struct.pack("=Q", state))

    @property
    def lost(self) -> int:
        """Threads of the tree for which the map had no room: their hits are missing."""
        return self._lost_here + (self._lost.cells[0] if self._lost else 0)

    def close(self) -> None:
        """Stop following. A second call does nothing."""
        if self._tasks is not None:
            self._tasks.close()
            self._tasks = None
        if self.fd >= 0:
            fds.close(self.fd)
            self.fd = -1
        lost, self._lost = self._lost, None
        if lost is not None:
            # Reported at the end of a run, when the session is closed.
            self._lost_here += lost.cells[0]
            lost.close()


def family(pids: set[int]) -> set[int]:
    """The threads of these processes and of their living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            # It may end meanwhile.
            with suppress(OSError):
                stat = read_bytes(f"/proc/{name}/stat")
                parent = int(stat.rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    threads, waiting = set[int](), list(pids)
    while waiting:
        pid = waiting.pop()
        waiting += children.pop(pid, [])
        with suppress(OSError):
            threads.update(map(int, os.listdir(f"/proc/{pid}/task")))
    return threads
