# SPDX-License-Identifier: Apache-2.0
"""Children: hits of a tree of processes, however short they live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from batchprobe.filters.pid import Pid, Tid
from batchprobe.filters.scope import ScopeFilter
from batchprobe.kernel.host import require_initial_pid_namespace
from batchprobe.programs.process_tree import ProcessTree

__all__ = ["Children"]


class Children(ScopeFilter):
    """Counts hits of the processes that Pid and Tid name in the same session, and of all their
    descendants, from the fork that begins a process to the release of its last file.

    Also of commands that `spawning` starts. The kernel follows them (bpf/tree.c): no process is too
    short-lived. Raises UnsupportedError inside a PID namespace.
    """

    name = "children"

    def __init__(self) -> None:
        self._tree: ProcessTree | None = None

    def constants(self) -> Mapping[str, int]:
        """A tree is looked up, thread by thread."""
        return {"SCOPE_TREE": 1}

    def follow(self, others: Sequence[ScopeFilter]) -> ProcessTree:
        """Begin to follow; what lives now is read from /proc."""
        require_initial_pid_namespace()
        pids = [pid for one in others if isinstance(one, Pid) for pid in one.pids]
        tids = [tid for one in others if isinstance(one, Tid) for tid in one.tids]
        tree = self._tree = ProcessTree()
        try:
            tree.add(pids, tids)
        except BaseException:
            # Nobody else knows of it yet.
            tree.close()
            raise
        return tree

    def spawning(self) -> AbstractContextManager[None]:
        """Processes that this thread starts in the block count from their execve(2) on, and so do
        their descendants. Raises RuntimeError before the first attach of the session.
        """
        if self._tree is None:
            raise RuntimeError("attach first: nothing follows processes yet")
        return self._tree.spawning()

    @property
    def lost(self) -> int:
        """Threads that the kernel had no room to follow: their hits did not count."""
        return self._tree.lost if self._tree is not None else 0
