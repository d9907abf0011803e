# SPDX-License-Identifier: Apache-2.0
"""CallsAttachment: both ends of calls, for actions that look at them.

The kernel object of the entries and that of the returns share their maps, so one slot stands for
both ends of a function. The returns are armed first: every entry that counts has its return.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe import arch
from batchprobe._util.counted import counted
from batchprobe.attach.base import AttachContext, Attachment, Refusal, sum_or_unknown
from batchprobe.attach.kprobe import hit_ips
from batchprobe.attach.outcome import Make
from batchprobe.commit.queue import Reclaimed, Remains
from batchprobe.functions.table import Function
from batchprobe.functions.targets import Target
from batchprobe.kernel.host import threads
from batchprobe.probe import Probe
from batchprobe.programs.maps import possible_cpus

__all__ = ["CallsAttachment", "fit", "why_no_link"]

# A return probe by function graph needs no instances (kernel/trace/fprobe.c, Linux 6.14).
_BY_GRAPH = "fprobe_return"
# Calls that may be open at one time, for each function of a link (fprobe_init_rethook()).
_OPEN_PER_CPU = 2


def why_no_link(probes: Sequence[Probe], context: AttachContext) -> str:
    """Why another ABI is better for these calls than a kprobe_multi link; empty if it is not.

    A link shares out instances to all calls in its functions, and one of few functions has few: a
    handful of sleeping threads would use them up. A trace event takes their number.
    """
    if context.table.symbol_address(_BY_GRAPH) is not None:
        return ""
    followed = len(probes) * possible_cpus() * _OPEN_PER_CPU
    if followed >= threads():
        return ""
    return f"a link of {counted(len(probes), 'function')} follows {followed} calls at a time"


def fit(
    probes: Sequence[Probe], context: AttachContext
) -> tuple[Sequence[Probe], Sequence[Refusal]]:
    """Probes whose calls can be followed, and the others."""
    wrong = context.distrusted.get("return", "")
    fit, refused = [], []
    for probe in probes:
        if probe.target.function is None:
            refused.append(Refusal(probe, 0, "calls in a module that is not loaded yet"))
        elif wrong:
            refused.append(Refusal(probe, 0, f"not trusted: {wrong}"))
        else:
            fit.append(probe)
    return fit, refused


class CallsAttachment(Attachment):
    """Two kernel objects, which are armed and reclaimed together."""

    def __init__(self, probes: Sequence[Probe], make: Make) -> None:
        # Not the one of the base class: the results are those of the entries.
        self._entries = make(probes, False, None)
        returns = [Probe(_return_of(probe.target)) for probe in probes]
        self._returns = make(returns, True, self._entries)
        self._return_of = dict(zip(probes, returns, strict=True))
        for probe in probes:
            probe.attachment = self
        self.maps = self._entries.maps
        self.live = self._entries.live
        self.reader = self._entries.reader
        self.refused = self._entries.refused
        self.detach_group = None
        self._action = self._entries._action
        self._by_slot = tuple(probes) if self._action.has_events else ()
        self._lost = 0

    def attach(self, context: AttachContext) -> None:
        self.maps.stack_moves = context.stack_moves
        silent = context.with_changes(progress=lambda _count: context.progress(0))
        self._returns.attach(silent)
        entry_of = {back: probe for probe, back in self._return_of.items()}
        for refusal in self._returns.refused:
            probe = entry_of[refusal.probe]
            self.live.pop(probe, None)
            self.refused.append(Refusal(probe, refusal.errno, refusal.detail, refusal.cause))
        if self.live:
            self._entries.attach(context)

    @property
    def is_empty(self) -> bool:
        return self._entries.is_empty and self._returns.is_empty

    def takes_long(self, gone: Sequence[Probe]) -> bool:
        return self._entries.takes_long(gone) or self._returns.takes_long(gone)

    def reclaim(self, gone: Sequence[Probe], remains: Remains | None = None) -> Reclaimed:
        backs = [self._return_of[probe] for probe in gone]
        if self.live.keys() <= set(gone):
            # Nobody else asks for the removal of probes that were refused at one end only.
            backs = list(self._returns.live)
        returns = self._returns.reclaim(backs, remains)
        entries = self._entries.reclaim(gone, remains)
        return Reclaimed(
            clean=entries.clean, dirty=entries.dirty, failed=(*returns.failed, *entries.failed)
        )

    def claim(self, ip: int, probe: Probe, function: Function) -> None:
        # Nothing claims a return: while its instruction pointer is unknown, it is dropped. So map
        # it first, as at the attach: every entry that counts has its return.
        back = self._return_of[probe]
        self.maps.map_ips(*((at, back.slot) for at in hit_ips(back, function, arch.current())))
        super().claim(ip, probe, function)

    def missed(self) -> int | None:
        return sum_or_unknown(self._entries.missed(), self._returns.missed())

    def missed_in(self) -> Sequence[Probe]:
        entry_of = {back: probe for probe, back in self._return_of.items()}
        backs = [entry_of[back] for back in self._returns.missed_in()]
        return list(dict.fromkeys([*self._entries.missed_in(), *backs]))


def _return_of(target: Target) -> Target:
    return Target(target.label, target.spec.with_changes(is_return=True), target.function)
