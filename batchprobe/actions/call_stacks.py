# SPDX-License-Identifier: Apache-2.0
"""The open calls of each thread, for actions that look at both ends of calls: see bpf/calls.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchprobe.programs.maps import CELL_SIZE, MapSpec, lift_memlock_limit
from batchprobe.programs.tasks import TaskPrograms
from batchprobe.sys import bpf, fds

__all__ = ["CallStacks"]

# As in bpf/calls.h, in u64.
_DEPTH = 32
_THREAD_CELLS = 1 + 4 * _DEPTH
_MAX_THREADS = 1 << 14
"""Threads with open calls at one time, or that had some and live: 17 MB."""
_THREADS = "threads"


class CallStacks:
    """Nested calls may be those of several kernel objects, which share the stacks."""

    def __init__(self, forgets: str) -> None:
        """`forgets` is the program of bpf/threads.c that forgets a thread which is gone."""
        self._forgets = forgets
        self._threads = -1
        self._tasks: TaskPrograms | None = None

    @staticmethod
    def maps() -> Sequence[MapSpec]:
        """What each kernel object has of its own."""
        return [
            MapSpec.array("no_calls", 1, _THREAD_CELLS),
            MapSpec.array("stack_moves", 1),
        ]

    def start(self, others: Mapping[str, int] | None = None) -> None:
        """Create them. `others` are descriptors of maps that the program also needs.

        Raises KernelError, or UnsupportedError where neither BTF nor tracefs can be read.
        """
        if self._threads >= 0:
            return
        lift_memlock_limit()
        self._threads = bpf.map_create(
            _THREADS,
            bpf.BPF_MAP_TYPE_HASH,
            key_size=CELL_SIZE,
            value_size=_THREAD_CELLS * CELL_SIZE,
            entries=_MAX_THREADS,
        )
        try:
            self._tasks = TaskPrograms({**(others or {}), _THREADS: self._threads})
            self._tasks.run_with_pid(self._forgets, "sched_process_free", "pid")
        except BaseException:
            self.stop()
            raise

    def shared(self) -> Mapping[str, int]:
        """Their descriptor."""
        return {_THREADS: self._threads}

    def stop(self) -> None:
        """Free them."""
        if self._tasks is not None:
            self._tasks.close()
            self._tasks = None
        if self._threads >= 0:
            fds.close(self._threads)
            self._threads = -1
