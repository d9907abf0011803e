# SPDX-License-Identifier: Apache-2.0
"""How far the stack pointer moves from the entry of a call to its return, as probes report it.

That depends on the architecture, on the ABI and on how the kernel makes return probes, so it is
tried. With it a return never gets the entry of another call: see bpf/latency.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchprobe.attach import abis, calibration
from batchprobe.attach.base import AttachContext, Attachment
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.errors import UnsupportedError
from batchprobe.functions.cache import SymbolCache
from batchprobe.probe import Probe

__all__ = ["stack_moves"]

_MAP = "stack_moves"
# A call may be missed.
_CALLS = 3


def stack_moves(
    abi: str,
    context: AttachContext,
    cache: SymbolCache | None,
    discard: Callable[[Sequence[Attachment]], object],
) -> int:
    """The distance for this ABI, biased as bpf/latency.h has it; 0 where it is unknown.

    A known one is cached until a module is loaded or unloaded, or the machine reboots.
    """

    def look() -> bytes | None:
        moves = _seen(abi, context, discard)
        return b"%d" % moves if moves else None

    found = look() if cache is None else cache.text(f"calls-{abi}", look)
    if not found:
        context.explain(f"the ABI {abi}: returns are told apart by their function only")
    return int(found or 0)


def _seen(
    abi: str, context: AttachContext, discard: Callable[[Sequence[Attachment]], object]
) -> int:
    try:
        target = calibration.target(context.table)
    except UnsupportedError:
        return 0
    attached = AttachOutcome()
    try:
        own = context.with_changes(taken=(), progress=lambda _count: None)
        abis.attach(abi, [Probe(target)], own, attached)
        return next((_moves(one) for one in attached.attachments), 0)
    except UnsupportedError:
        return 0
    finally:
        discard((*attached.attachments, *attached.abandoned))


def _moves(attachment: Attachment) -> int:
    array = attachment.maps.arrays[_MAP]
    if array is None:
        return 0
    attachment.maps.open_gates(probe.slot for probe in attachment.live)
    for _ in range(_CALLS):
        calibration.call()
    return array.cells[0]
