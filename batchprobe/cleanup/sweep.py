# SPDX-License-Identifier: Apache-2.0
"""Removes the stale objects of dead batchprobe processes, and nothing else."""

from __future__ import annotations

import errno
import time
from collections import Counter

from batchprobe.commit.barrier import Barrier, BarrierMode
from batchprobe.commit.rcu_expedited import RcuExpedited
from batchprobe.errors import KernelError
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys.process import Owner

__all__ = ["Swept", "sweep"]

_POLL_SECONDS = 0.01


class Swept:
    """The outcome of a sweep."""

    def __init__(self) -> None:
        # Removed trace events, as GROUP/EVENT, and the number of their probes.
        self.events: list[str] = []
        self.probes = 0
        # Whether a dead process held rcu_expedited, which is restored.
        self.rcu_restored = False
        self.rcu_failed = ""
        self.events_failed: list[str] = []

    @property
    def failed(self) -> list[str]:
        """Messages about what could not be removed or restored."""
        return [*filter(None, [self.rcu_failed]), *self.events_failed]


def sweep(
    tracefs: Tracefs | None, *, patience: float = 0.0, mode: BarrierMode = BarrierMode.AUTO
) -> Swept:
    """Remove the trace events of dead owners, and release their hold on rcu_expedited. Without
    tracefs there are no events to remove.

    A trace event is busy while the kernel still closes its perf event; removing it is tried again
    for `patience` seconds. Raises KernelError if kprobe_events cannot be read.
    """
    swept = Swept()
    # First, because the barrier below would restore rcu_expedited too, but not report it.
    try:
        swept.rcu_restored = RcuExpedited().restore_for_dead()
    except OSError as error:
        swept.rcu_failed = f"restoring rcu_expedited: {error}"
    deadline = time.monotonic() + patience
    if tracefs is not None and _stale_events(tracefs):
        with Barrier(mode, Owner.this_process()).expedited_grace_periods():
            while _sweep_once(tracefs, swept) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
    return swept


def _stale_events(tracefs: Tracefs) -> dict[str, int]:
    """The trace events of dead owners, each with its number of probes."""
    # A group may have thousands of definitions: look up its owner once.
    is_stale: dict[str, bool] = {}
    events: list[str] = []
    for definition in tracefs.definitions():
        group = definition.group
        if group not in is_stale:
            owner = Owner.from_group(group)
            is_stale[group] = owner is not None and owner.is_dead
        if is_stale[group]:
            events.append(f"{group}/{definition.event}")
    return Counter(events)


def _sweep_once(tracefs: Tracefs, swept: Swept) -> bool:
    """Try to remove each stale event; returns whether any was busy."""
    swept.events_failed = []
    busy = False
    for name, count in _stale_events(tracefs).items():
        try:
            tracefs.command(f"-:{name}")
        except KernelError as error:
            if error.errno == errno.ENOENT:
                # Another sweep removed it.
                continue
            swept.events_failed.append(str(error))
            busy = busy or error.errno == errno.EBUSY
        else:
            swept.events.append(name)
            swept.probes += count
    return busy
