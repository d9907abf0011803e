# SPDX-License-Identifier: Apache-2.0
"""Tries the two probes of a call: how far the stack pointer moves from one to the other, what they
add to the call, and whether one link can carry both.

All of it depends on the kernel, the architecture and the ABI. The distance keeps a return from
getting the entry of another call: see bpf/calls.h.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from batchprobe.actions.loader import ProgramLoader
from batchprobe.attach import abis, calibration
from batchprobe.attach.base import AttachContext, Attachment
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.filters.scope import Scope
from batchprobe.functions.cache import SymbolCache
from batchprobe.probe import Probe
from batchprobe.sys import bpf

__all__ = ["Calls", "measured"]

_MAP = "stack_moves"
# The fastest of several blocks: others were interrupted.
_BLOCKS, _CALLS = 8, 50
# Another task may be in a call when it is asked.
_TRIES = 5


class Calls(NamedTuple):
    """What a trial showed."""

    stack_moves: int = 0
    """Biased as bpf/calls.h has it; 0 if unknown."""
    probe_ns: int = 0
    """What the probes add to a call; 0 if unknown."""
    session_is_return: int = 0
    """As `programs.program.SESSION_IS_RETURN` if sessions work here, else 0."""


def measured(
    abi: str,
    context: AttachContext,
    cache: SymbolCache | None,
    discard: Callable[[Sequence[Attachment]], object],
) -> Calls:
    """What this ABI's probes of a call do, with this action: each adds another time.

    Kept until a module is loaded or unloaded, or the machine reboots.
    """

    def look() -> bytes | None:
        found = _best(abi, context, discard)
        return b"%d %d %d" % found if found.stack_moves else None

    text = look() if cache is None else cache.text(f"calls-{abi}-{context.action.name}", look)
    if not text:
        context.explain(f"the ABI {abi}: returns are told apart by their function only")
        return Calls()
    return Calls(*map(int, text.split()))


def _best(
    abi: str, context: AttachContext, discard: Callable[[Sequence[Attachment]], object]
) -> Calls:
    """What a session shows, if the ABI has it, else what two probes show."""
    if abi == "multi":
        from batchprobe.attach.kprobe_session import is_return_id  # noqa: PLC0415  (once a boot)

        try:
            found = is_return_id()
        except (KernelError, UnsupportedError) as error:
            context.explain(f"no link for both ends of calls: {error}")
        else:
            session = context.with_changes(session_is_return=found)
            tried = _tried(abi, session, discard)
            if tried.stack_moves:
                return tried
    return _tried(abi, context, discard)


def _tried(
    abi: str, context: AttachContext, discard: Callable[[Sequence[Attachment]], object]
) -> Calls:
    try:
        target = calibration.target(context.table)
    except UnsupportedError:
        return Calls()
    if any(one.name != Scope.name for one in context.filters):
        # It may not let our calls pass, and the distance does not depend on it.
        context = _unfiltered(context)
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
                is_session = attachment.attach_type == bpf.BPF_TRACE_KPROBE_SESSION
                if is_session and (wrong := _wrong(attachment, own)):
                    context.explain(f"a link for both ends of calls is not trusted: {wrong}")
                    return Calls()
                return Calls(
                    array.cells[0],
                    max(round(probed - alone), 0),
                    own.session_is_return if is_session else 0,
                )
    except UnsupportedError as error:
        context.explain(f"the ABI {abi} was not tried: {error}")
    finally:
        discard((*attached.attachments, *attached.abandoned))
        for one in filters:
            one.stop()
    return Calls()


def _unfiltered(context: AttachContext) -> AttachContext:
    with ProgramLoader(context.arch, context.action, ()) as loader:
        programs = loader.get(lambda: None, lambda _what, _done, _total: None)
    return context.with_changes(programs=programs, filters=())


def _wrong(attachment: Attachment, context: AttachContext) -> str:
    """What is wrong with the calls that an attachment saw; empty if nothing is."""
    [slot] = (probe.slot for probe in attachment.live)
    unfinished: int | None = 0
    for _ in range(_TRIES):
        unfinished = context.action.unfinished(attachment.snapshot()[slot])
        if not unfinished:
            break
    if unfinished:
        return f"{unfinished} of {attachment.maps.hits_of(slot)} calls did not return"
    # The kernel skips an entry that interrupts another program.
    if attachment.maps.hits_of(slot) < _BLOCKS * _CALLS // 2:
        return f"it saw {attachment.maps.hits_of(slot)} of {_BLOCKS * _CALLS} calls"
    return ""


def _nanoseconds_a_call() -> float:
    blocks = []
    for _ in range(_BLOCKS):
        began = time.perf_counter_ns()
        for _ in range(_CALLS):
            calibration.call()
        blocks.append(time.perf_counter_ns() - began)
    return min(blocks) / _CALLS
