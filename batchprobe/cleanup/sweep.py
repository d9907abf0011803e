"""Removes what batchprobe processes left that died before they could: nothing of anybody else's."""

from __future__ import annotations

import errno
import time
from collections import Counter
from typing import TYPE_CHECKING

from batchprobe.commit.barrier import Barrier, BarrierMode, ExpeditedKnob
from batchprobe.errors import KernelError
from batchprobe.sys.process import Owner

if TYPE_CHECKING:
    from batchprobe.kernel.tracefs import Tracefs

__all__ = ["Swept", "sweep"]


class Swept:
    """What a sweep removed, and what it could not."""

    def __init__(self, *, knob_restored: bool) -> None:
        self.events: list[str] = []
        self.probes = 0
        self.knob_restored = knob_restored
        self.failed: list[str] = []


def sweep(
    tracefs: Tracefs, *, patience: float = 0.0, mode: BarrierMode = BarrierMode.AUTO
) -> Swept:
    """Remove the trace events of dead owners and restore the RCU knob if only such hold it.

    An event whose perf fd the kernel is still closing is busy: it is tried again for `patience`
    seconds.
    """
    # First: to take the knob for this sweep would restore it too, and not say so.
    swept = Swept(knob_restored=ExpeditedKnob().restore_for_dead())
    deadline = time.monotonic() + patience
    if _dead(tracefs):
        with Barrier(mode, Owner.this_process()).short_waits():
            while _sweep_once(tracefs, swept) and time.monotonic() < deadline:
                time.sleep(0.01)
    return swept


def _dead(tracefs: Tracefs) -> dict[str, int]:
    """Probes by event, of owners that are gone."""
    # A group may have thousands of lines: each is asked about once.
    dead: dict[str, bool] = {}
    events: list[str] = []
    for definition in tracefs.definitions():
        group = definition.group
        if group not in dead:
            owner = Owner.from_group(group)
            dead[group] = owner is not None and owner.is_dead
        if dead[group]:
            events.append(f"{group}/{definition.event}")
    return Counter(events)


def _sweep_once(tracefs: Tracefs, swept: Swept) -> bool:
    """Try each event once; whether any was busy."""
    swept.failed = []
    busy = False
    for name, count in _dead(tracefs).items():
        try:
            tracefs.command(f"-:{name}")
        except KernelError as error:
            if error.errno == errno.ENOENT:
                # The guardian, or another start, was faster.
                continue
            swept.failed.append(str(error))
            busy = busy or error.errno == errno.EBUSY
        else:
            swept.events.append(name)
            swept.probes += count
    return busy
