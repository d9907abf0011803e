# SPDX-License-Identifier: Apache-2.0
"""Comm: hits of tasks by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from batchprobe.filters.scope import ScopeFilter

__all__ = ["Comm"]

_SIZE = 16  # TASK_COMM_LEN, include/linux/sched.h


class Comm(ScopeFilter):
    """Counts hits of tasks with one of these names, as in /proc/PID/comm.

    The kernel keeps 15 bytes of a name: longer ones are cut off here too. They may be any bytes,
    written as `os.fsdecode` does.
    """

    name = "comm"

    def __init__(self, *comms: str) -> None:
        if not all(comms) or not comms:
            raise ValueError("a task's name is not empty")
        self._names = comms
        self._comms = tuple(dict.fromkeys(os.fsencode(comm)[: _SIZE - 1] for comm in comms))

    def constants(self) -> Mapping[str, int]:
        """Names are looked up."""
        return {"SCOPE_COMMS": 1}

    def arguments(self) -> Sequence[int | str]:
        """The names."""
        return self._names

    def sets(self) -> Mapping[str, Sequence[bytes]]:
        """The names, padded as the kernel pads them."""
        return {"scope_comms": [comm.ljust(_SIZE, b"\0") for comm in self._comms]}
