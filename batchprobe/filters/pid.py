# SPDX-License-Identifier: Apache-2.0
"""Pid and Tid: hits of some processes, or of single threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchprobe.filters.scope import ScopeFilter, u64
from batchprobe.kernel.host import require_initial_pid_namespace

__all__ = ["Pid", "Tid"]


class Pid(ScopeFilter):
    """Counts hits of these processes, in all their threads.

    With Children in the same session also those of their descendants. Raises UnsupportedError
    inside a PID namespace, where the kernel knows processes by other numbers.
    """

    name = "pid"
    is_root = True

    def __init__(self, *pids: int) -> None:
        self.pids = _positive(pids)

    def constants(self) -> Mapping[str, int]:
        """A single process is compared with, several are looked up."""
        return {"SCOPE_PID": self.pids[0]} if len(self.pids) == 1 else {"SCOPE_PIDS": 1}

    def arguments(self) -> Sequence[int | str]:
        """The processes."""
        return self.pids

    def sets(self) -> Mapping[str, Sequence[bytes]]:
        """The processes."""
        require_initial_pid_namespace()
        return {"scope_pids": u64(self.pids)}


class Tid(ScopeFilter):
    """Counts hits of these threads; with Children also of what they start after the attach.

    Raises UnsupportedError inside a PID namespace.
    """

    name = "tid"
    is_root = True

    def __init__(self, *tids: int) -> None:
        self.tids = _positive(tids)

    def constants(self) -> Mapping[str, int]:
        """Threads are looked up."""
        return {"SCOPE_TIDS": 1}

    def arguments(self) -> Sequence[int | str]:
        """The threads."""
        return self.tids

    def sets(self) -> Mapping[str, Sequence[bytes]]:
        """The threads."""
        require_initial_pid_namespace()
        return {"scope_tids": u64(self.tids)}


def _positive(numbers: Sequence[int]) -> tuple[int, ...]:
    if not numbers or min(numbers) <= 0:
        raise ValueError(f"process IDs are numbers from 1: {numbers}")
    return tuple(dict.fromkeys(numbers))
