"""`multi`: one BPF kprobe_multi link for all functions (Linux 5.18, CONFIG_FPROBE)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from batchprobe.attach.base import Attached, Carrier, Context, Placement, Refusal, sum_of_known
from batchprobe.commit.queue import Left, Reclaimed
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.sys import bpf, fds

if TYPE_CHECKING:
    from batchprobe.probe import Probe

__all__ = ["NAME", "attach"]

NAME = "multi"
# A kernel without CONFIG_FPROBE refuses the link; one before 5.15 the program's helper.
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL})
_FIRST_EPOCH = 1
_LACKING = "this kernel's kprobe_multi links cannot be used"
_REMEDY = "their programs need Linux 5.18; --abi auto takes another ABI"


def attach(probes: Sequence[Probe], context: Context, attached: Attached) -> None:
    """Attach entry and return probes, a link for each kind.

    What is no plain function entry is refused, and so is all where the kernel lacks kprobe_multi.
    """
    fit = []
    for probe in probes:
        if detail := _unfit(probe, context):
            attached.refused.append(Refusal(probe, 0, detail))
        else:
            fit.append(probe)
    attached.carry(
        fit, context, lambda wanted, is_return: MultiCarrier(wanted, is_return=is_return)
    )


def _unfit(probe: Probe, context: Context) -> str:
    function = probe.target.function
    if function is None:
        return "a link cannot wait for a module"
    if probe.target.offset:
        return "a link takes function entries only"
    if context.placement is Placement.AFTER and not probe.target.is_return:
        return "a link stands at the entry"
    if not probe.target.is_return and "entry" in context.distrusted:
        return f"not trusted: {context.distrusted['entry']}"
    return ""


class MultiCarrier(Carrier):
    """A link, replaced by a smaller one when it carries more dead weight than live probes.

    A link cannot shrink. The smaller one is made first, and both fire for a while; then each CPU
    is moved from one to the other by this thread *running on that CPU*, in user mode, where no
    handler can be half-way: handlers run with preemption off. So each hit is counted once.
    A return probe counts calls that were entered before, which the new link would not see return:
    such a link stays until all its probes are gone.
    """

    def __init__(self, probes: Sequence[Probe], *, is_return: bool) -> None:
        # It holds on to the modules.
        super().__init__(probes, ips=1, waits=False)
        self._is_return = is_return
        self._epoch = _FIRST_EPOCH
        self._program = -1
        self._link = -1
        # How many probes the link holds, dead ones too.
        self._carried = 0
        # Of links that were replaced; of all of them, when the last is gone.
        self._old_missed: int | None = 0
        self._final_missed: int | None = None

    def attach(self, context: Context) -> None:
        self._epochs = self.bank.array("epochs", self.bank.cpus)
        self._code = context.programs["by_link"]
        try:
            self._program = self._load(self._epoch)
        except KernelError as error:
            if error.errno in _UNSUPPORTED:
                raise UnsupportedError(f"{_LACKING} ({error})", remedy=_REMEDY) from None
            raise
        if context.arch.entry_varies:
            # What a program is told is the address of the patch site, as ftrace knows it
            # (bpf_kprobe_multi_entry_ip(), kernel/trace/bpf_trace.c).
            for probe in self.live:
                probe.offset = context.arch.entry(context.code(probe))
        self.bank.address(*((probe.address or 0, probe.slot) for probe in self.live))
        self._attach(list(self.live), context)
        for cpu in range(self.bank.cpus):
            self._epochs.cells[cpu] = self._epoch
        self._carried = len(self.live)
        for probe in self.live:
            probe.abi = NAME
        context.progress(len(self.live))

    def _load(self, epoch: int) -> int:
        """A program for the link that counts in this epoch."""
        kind = bpf.BPF_TRACE_KPROBE_MULTI
        return self.bank.load(self._code, attach_type=kind, epoch=epoch)

    def _attach(self, probes: list[Probe], context: Context) -> None:
        try:
            self._link = self._create(probes)
        except KernelError as error:
            # One function that ftrace does not know fails the whole link. That is rare, and its
            # list takes long to read.
            known = [probe for probe in probes if not self._is_unknown(probe, context)]
            if known and error.errno in _UNSUPPORTED and not self._any_works(known):
                raise UnsupportedError(f"{_LACKING} ({error})", remedy=_REMEDY) from None
            if len(known) < len(probes):
                self._try(known)
            else:
                self._find_bad(probes, error)
            if self.live and self._link < 0:
                self._link = self._create(list(self.live))

    def _is_unknown(self, probe: Probe, context: Context) -> bool:
        """Refuse a probe that ftrace does not list."""
        function = probe.target.function
        if function is None or context.table.is_traceable(function) is not False:
            return False
        self.live.pop(probe, None)
        self.refused.append(Refusal(probe, 0, "not in available_filter_functions"))
        return True

    def _try(self, probes: Sequence[Probe]) -> None:
        if probes:
            try:
                self._link = self._create(probes)
            except KernelError as error:
                self._find_bad(probes, error)

    def _create(self, probes: Sequence[Probe], program: int | None = None) -> int:
        addresses = [probe.address or 0 for probe in probes]
        flags = bpf.KPROBE_MULTI_RETURN if self._is_return else 0
        program = self._program if program is None else program
        return bpf.kprobe_multi_link(program, addresses, flags=flags)

    def _any_works(self, probes: Sequence[Probe]) -> bool:
        """Whether the kernel takes links at all: EINVAL may also mean one bad function."""
        for probe in probes[:: max(1, len(probes) // 4)]:
            try:
                fds.close(self._create([probe]))
            except KernelError:
                continue
            return True
        return False

    def _find_bad(self, probes: Sequence[Probe], error: KernelError) -> None:
        """Halve until the functions that the kernel refuses are alone."""
        if len(probes) == 1:
            self._refuse(probes[0], error)
            return
        middle = len(probes) // 2
        for half in (probes[:middle], probes[middle:]):
            try:
                fds.close(self._create(half))
            except KernelError as refusal:
                self._find_bad(half, refusal)

    @property
    def is_empty(self) -> bool:
        return self._link < 0

    def reclaim(self, gone: Sequence[Probe]) -> Reclaimed:
        self._bury(gone)
        if not self.live:
            self._final_missed = self.missed()
            link, self._link = self._link, -1
            if link >= 0:
                fds.close(link)
            self.bank.close()
            return Reclaimed(dirty=len(gone))
        if self._is_return or len(self.live) * 2 > self._carried:
            return Reclaimed(clean=len(gone))
        try:
            self._cut_over()
        except KernelError as error:
            # The old link goes on: its dead probes' gates are closed.
            left = Left(f"{self._carried - len(self.live)} probes of a link: {error}", error.errno)
            return Reclaimed(clean=len(gone), left=(left,))
        return Reclaimed(clean=len(gone))

    def _cut_over(self) -> None:
        """Replace the link by one of the live probes alone."""
        epoch = self._epoch + 1
        program = self._load(epoch)
        try:
            smaller = self._create(list(self.live), program)
        except KernelError:
            self.bank.unload(program)
            raise
        larger, self._link, self._epoch = self._link, smaller, epoch
        gone, self._program = self._program, program
        self._carried = len(self.live)
        before = os.sched_getaffinity(0)
        for cpu in range(self.bank.cpus):
            # An offline CPU has no hits, and one we may not run on is moved as well as it can be: a
            # hit half-way there may count twice or not at all.
            with suppress(OSError):
                os.sched_setaffinity(0, {cpu})
            self._epochs.cells[cpu] = epoch
        self._old_missed = sum_of_known(self._old_missed, _link_missed(larger), _prog_misses(gone))
        fds.close(larger)
        self.bank.unload(gone)
        # Refused if our cpuset shrank meanwhile: the kernel has chosen CPUs for us then.
        with suppress(OSError):
            os.sched_setaffinity(0, before)

    def missed(self) -> int | None:
        if self._link < 0:
            return self._final_missed
        return sum_of_known(self._old_missed, _link_missed(self._link), _prog_misses(self._program))


def _link_missed(link: int) -> int | None:
    # Whoever gave up rights since the attach may not ask: unknown, and no reason to keep a link.
    try:
        return bpf.link_missed(link)
    except KernelError:
        return None


def _prog_misses(program: int) -> int | None:
    try:
        return bpf.prog_misses(program)
    except KernelError:
        return None
