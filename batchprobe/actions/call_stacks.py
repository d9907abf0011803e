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
_THREADS, _SAVED = "threads", "saved"


class CallStacks:
    """Nested calls may be those of several kernel objects, which share the stacks."""

    def __init__(self, *, saved_size: int = 0, most_saved: int = 0) -> None:
        """`saved_size` bytes are saved at the entry of each open call, of `most_saved` at one time;
        with 0, nothing is saved.
        """
        self._saved_size = saved_size
        self._most_saved = most_saved
        self._fds: dict[str, int] = {}
        self._tasks: TaskPrograms | None = None

    @staticmethod
    def maps() -> Sequence[MapSpec]:
        """What each kernel object has of its own."""
        return [
            MapSpec.array("no_calls", 1, _THREAD_CELLS),
            MapSpec.array("stack_moves", 1),
        ]

    def start(self) -> None:
        """Create them, and the place for what is saved.

        Raises KernelError, or UnsupportedError where neither BTF nor tracefs can be read.
        """
        if self._fds:
            return
        lift_memlock_limit()
        try:
            self._create(_THREADS, _THREAD_CELLS * CELL_SIZE, _MAX_THREADS)
            if self._saved_size:
                self._create(_SAVED, self._saved_size, self._most_saved)
            # Programs of bpf/threads.c.
            what = _SAVED if self._saved_size else "thread"
            self._tasks = TaskPrograms(self._fds)
            self._tasks.run_with_pid(f"{what}_free", "sched_process_free", "pid")
            self._tasks.run(f"{what}_exec", "sched_process_exec")
        except BaseException:
            self.stop()
            raise

    def _create(self, name: str, value_size: int, entries: int) -> None:
        self._fds[name] = bpf.map_create(
            name,
            bpf.BPF_MAP_TYPE_HASH,
            key_size=CELL_SIZE,
            value_size=value_size,
            entries=entries,
        )

    def shared(self) -> Mapping[str, int]:
        """Their descriptors."""
        return self._fds

    def stop(self) -> None:
        """Free them."""
        if self._tasks is not None:
            self._tasks.close()
            self._tasks = None
        while self._fds:
            fds.close(self._fds.popitem()[1])
