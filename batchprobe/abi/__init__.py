"""The probe ABIs, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchprobe.abi import event, multi, perf
from batchprobe.abi.base import (
    Attached,
    Carrier,
    Context,
    Placement,
    Refusal,
    hit_ips,
    sum_of_known,
)
from batchprobe.probe import Probe

__all__ = [
    "ABIS",
    "Attached",
    "Carrier",
    "Context",
    "Placement",
    "Refusal",
    "hit_ips",
    "sum_of_known",
]

ABIS: dict[str, Callable[[Sequence[Probe], Context, Attached], None]] = {
    multi.NAME: multi.attach,
    event.NAME: event.attach,
    perf.NAME: perf.attach,
}
