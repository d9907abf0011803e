# SPDX-License-Identifier: Apache-2.0
"""Tries the two probes of a call: how far the stack pointer moves from one to the other, and what
they add to the call.

Both depend on the architecture, on the ABI and on how the kernel makes return probes. The distance
keeps a return from getting the entry of another call: see bpf/latency.h.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from batchprobe.attach import abis, calibration
from batchprobe.attach.base import AttachContext, Attachment
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.errors import UnsupportedError
from batchprobe.filters.scope import Scope
from batchprobe.functions.cache import SymbolCache
from batchprobe.probe import Probe

__all__ = ["Calls", "measured"]

_MAP = "stack_moves"
# The fastest of several blocks: others were interrupted.
_BLOCKS, _CALLS = 8, 50


class Calls(NamedTuple):
    """What a trial showed."""

    stack_moves: int = 0
    """Biased as bpf/latency.h has it; 0 if unknown."""
    probe_ns: int = 0
    """What the probes add to a call; 0 if unknown."""


def measured(
    abi: str,
    context: AttachContext,
    cache: SymbolCache | None,
    discard: Callable[[Sequence[Attachment]], object],
) -> Calls:
    """What this ABI's probes of a call do.

    Kept until a module is loaded or unloaded, or the machine reboots.
    """

    def look() -> bytes | None:
        found = _tried(abi, context, discard)
        return b"%d %d" % found if found.stack_moves else None

    text = look() if cache is None else cache.text(f"calls-{abi}", look)
    if not text:
        context.explain(f"the ABI {abi}: returns are told apart by their function only")
        return Calls()
    return Calls(*map(int, text.split()))


def _tried(
    abi: str, context: AttachContext, discard: Callable[[Sequence[Attachment]], object]
) -> Calls:
    try:
        target = calibration.target(context.table)
    except UnsupportedError:
        return Calls()
    if any(one.name != Scope.name for one in context.filters):
        # It may not let our calls pass.
        return Calls()
    filters = [Scope([]) for _ in context.filters]
    attached = AttachOutcome()
    alone = _nanoseconds_a_call()
    try:
        for one in filters:
            one.start()
        own = context.with_changes(taken=(), filters=filters, progress=lambda _count: None)
        abis.attach(abi, [Probe(target)], own, attached)
        for attachment in attached.attachments:
            array = attachment.maps.arrays[_MAP]
            if array is not None:
                attachment.maps.open_gates(probe.slot for probe in attachment.live)
                probed = _nanoseconds_a_call()
                return Calls(array.cells[0], max(round(probed - alone), 0))
    except UnsupportedError as error:
        context.explain(f"the ABI {abi} was not tried: {error}")
    finally:
        discard((*attached.attachments, *attached.abandoned))
        for one in filters:
            one.stop()
    return Calls()


def _nanoseconds_a_call() -> float:
    blocks = []
    for _ in range(_BLOCKS):
        began = time.perf_counter_ns()
        for _ in range(_CALLS):
            calibration.call()
        blocks.append(time.perf_counter_ns() - began)
    return min(blocks) / _CALLS
