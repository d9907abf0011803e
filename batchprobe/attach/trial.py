# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel whether it takes a kprobe, without arming one.

The kernel checks a kprobe when it is defined (register_kprobe(), kernel/kprobes.c), so a probe is
defined on a trace event that is never enabled.
"""

from __future__ import annotations

from collections.abc import Callable

from batchprobe.attach.trace_event import event_name
from batchprobe.errors import KernelError
from batchprobe.kernel.tracefs import Tracefs

__all__ = ["Trial"]


class Trial:
    """Trace events of this process that are never enabled, one for entry and one for return probes.

    `guard` is as in `AttachContext`. Raises UnsupportedError without tracefs.
    """

    def __init__(self, group: str, guard: Callable[[], None]) -> None:
        self._tracefs = Tracefs.find()
        self._group = group
        self._guard = guard
        self._events: dict[str, str] = {}
        self._answers: dict[tuple[str, int, str], bool] = {}

    def takes(self, function: str, offset: int, *, is_return: bool) -> bool:
        """Whether the kernel takes a kprobe at this offset of a function, as it understands the
        name.
        """
        kind = "r" if is_return else "p"
        asked = (function, offset, kind)
        if asked not in self._answers:
            self._answers[asked] = self._ask(kind, f"{function}+{offset}" if offset else function)
        return self._answers[asked]

    def _ask(self, kind: str, where: str) -> bool:
        if kind not in self._events:
            self._guard()
            self._events[kind] = f"{self._group}/{event_name()}"
        try:
            self._tracefs.command(f"{kind}:{self._events[kind]} {where}")
        except KernelError:
            return False
        return True

    def close(self) -> None:
        """Delete the events, with a grace period for each probe. Raises KernelError."""
        while self._events:
            _, event = self._events.popitem()
            self._tracefs.delete(f"-:{event}")
