# SPDX-License-Identifier: Apache-2.0
"""`multi`: one BPF kprobe_multi link for all functions (Linux 5.18, CONFIG_FPROBE)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from batchprobe._util.counted import counted
from batchprobe.attach.base import (
    AttachContext,
    Attachment,
    Placement,
    Refusal,
    if_allowed,
    sum_or_unknown,
)
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.commit.queue import Reclaimed, Remains, RemovalFailure
from batchprobe.errors import KernelError, UnsupportedError, VerifierError
from batchprobe.filters.base import ProbeKind
from batchprobe.probe import Probe
from batchprobe.programs.maps import MapSpec
from batchprobe.sys import bpf, fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = ["NAME", "MultiAttachment", "attach"]

NAME = "multi"
# A kernel without CONFIG_FPROBE refuses the link; one before 5.15 refuses the program's helper.
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL})
_FIRST_EPOCH = 1
_MESSAGE = "this kernel's kprobe_multi links cannot be used"
_REMEDY = "their programs need Linux 5.18; --abi auto takes another ABI"


def attach(probes: Sequence[Probe], context: AttachContext, attached: AttachOutcome) -> None:
    """Attach entry probes to one link and return probes to another; both ends of calls to one where
    the context has `session_is_return`.

    Refuses probes that a link cannot carry (an offset, an unloaded module), and all if the kernel
    has no usable links.
    """
    fit = []
    for probe in probes:
        if detail := _unfit(probe, context):
            attached.refused.append(Refusal(probe, 0, detail))
        else:
            fit.append(probe)
    make_calls = None
    if context.session_is_return:
        from batchprobe.attach.kprobe_session import SessionAttachment  # noqa: PLC0415 (few need it)

        make_calls = partial(SessionAttachment, context=context)
    attached.add(
        fit,
        context,
        lambda wanted, is_return, beside: MultiAttachment(
            wanted, context, is_return=is_return, beside=beside
        ),
        make_calls,
    )


def _unfit(probe: Probe, context: AttachContext) -> str:
    function = probe.target.function
    if function is None:
        return "a link cannot wait for a module"
    if probe.target.offset:
        return "a link takes function entries only"
    if context.placement is Placement.AFTER and not probe.target.is_return:
        return "a link's probes are at the entry"
    if not probe.target.is_return and "entry" in context.distrusted:
        return f"not trusted: {context.distrusted['entry']}"
    return ""


class MultiAttachment(Attachment):
    """A link, replaced by a smaller one when it holds at least as many dead probes as live ones.

    A link cannot shrink. The smaller one is created first, and for a while both fire. The
    committing thread then moves each CPU from one to the other while running on that CPU in user
    mode: handlers run with preemption off, so none is half-way there, and each hit counts once.

    A return probe counts calls that were entered earlier, which a new link would not see return.
    So a return link stays until all its probes are gone, and with it the link of its entries.
    """

    attach_type = bpf.BPF_TRACE_KPROBE_MULTI
    entry_program: ClassVar[str] = "by_link"

    def __init__(
        self,
        probes: Sequence[Probe],
        context: AttachContext,
        *,
        is_return: bool,
        beside: Attachment | None = None,
    ) -> None:
        # A link holds a reference to its modules, so no probe waits for one.
        super().__init__(probes, context, ips=1, modules_may_change=False, beside=beside)
        self._is_return = is_return
        self._may_shrink = not is_return and context.action.kind is not ProbeKind.CALL
        self._epoch = _FIRST_EPOCH
        self._link = -1
        self._size = 0
        """Functions in the link, dead probes included."""
        self._missed_by_old_links: int | None = 0
        self._final_missed: int | None = None

    # -- attach ------------------------------------------------------------------------------

    def attach(self, context: AttachContext) -> None:
        if self._beside is None:
            self._epochs = self.maps.add_array(MapSpec.array("epochs", self.maps.layout.cpus))
        is_entry = self._beside is None
        self._code = context.programs[self.entry_program if is_entry else "return_by_func_ip"]
        try:
            self._program = self._load(self._epoch)
        except KernelError as error:
            needs_jit = isinstance(error, VerifierError) and error.needs_jit
            if error.errno in _UNSUPPORTED and not needs_jit:
                raise UnsupportedError(f"{_MESSAGE} ({error})", remedy=_REMEDY) from error
            raise
        if not self._fill(context):
            return
        if context.arch.entry_depends_on_code:
            # bpf_get_func_ip() returns the address of the patch site, as ftrace knows it
            # (bpf_kprobe_multi_entry_ip(), kernel/trace/bpf_trace.c).
            for probe in self.live:
                probe.offset = context.arch.entry(context.code(probe))
        self.maps.map_ips(*((probe.address or 0, probe.slot) for probe in self.live))
        self._link_all(list(self.live), context)
        if self._beside is None:
            for cpu in range(self.maps.layout.cpus):
                self._epochs.cells[cpu] = self._epoch
        self._size = len(self.live)
        for probe in self.live:
            probe.abi = NAME
        context.progress(len(self.live))

    def _load(self, epoch: int) -> int:
        """Load a program that counts in this epoch."""
        return self.maps.load(self._code, attach_type=self.attach_type, epoch=epoch)

    def _link_all(self, probes: list[Probe], context: AttachContext) -> None:
        try:
            self._link = self._create(probes)
        except KernelError as error:
            # One function that ftrace does not know fails the whole link. That is rare, and
            # reading ftrace's list is slow, so it is only read now.
            context.explain(f"the link was refused ({error}): looking for functions to leave out")
            known = [probe for probe in probes if not self._refuse_if_untraceable(probe, context)]
            if known and error.errno in _UNSUPPORTED and not self._any_works(known):
                raise UnsupportedError(f"{_MESSAGE} ({error})", remedy=_REMEDY) from error
            if len(known) < len(probes):
                self._try(known)
            else:
                self._find_bad(probes, error)
            if self.live and self._link < 0:
                self._link = self._create(list(self.live))

    def _refuse_if_untraceable(self, probe: Probe, context: AttachContext) -> bool:
        """Refuse the probe if ftrace does not list its function; returns whether it did."""
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
        return bpf.kprobe_multi_link(program, addresses, flags=flags, attach_type=self.attach_type)

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
        """Bisect, and refuse the functions that the kernel does not take."""
        if len(probes) == 1:
            self._refuse(probes[0], error)
            return
        middle = len(probes) // 2
        for half in (probes[:middle], probes[middle:]):
            try:
                fds.close(self._create(half))
            except KernelError as refusal:
                self._find_bad(half, refusal)

    # -- reclaim -----------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return self._link < 0

    def reclaim(self, gone: Sequence[Probe], remains: Remains | None = None) -> Reclaimed:
        self._forget(gone)
        if not self.live:
            self._final_missed = self.missed()
            link, self._link = self._link, -1
            if link >= 0:
                _close(link, remains)
            self._close_maps()
            return Reclaimed(dirty=len(gone))
        if not self._may_shrink or len(self.live) * 2 > self._size:
            return Reclaimed(clean=len(gone))
        try:
            self._shrink(remains)
        except KernelError as error:
            # The old link stays; the gates of its dead probes are closed.
            dead = counted(self._size - len(self.live), "probe")
            what = f"{dead} of a link: {error}"
            failure = RemovalFailure(what, error.errno)
            return Reclaimed(clean=len(gone), failed=(failure,))
        return Reclaimed(clean=len(gone))

    def _shrink(self, remains: Remains | None) -> None:
        """Replace the link by one with the live probes only."""
        epoch = self._epoch + 1
        program = self._load(epoch)
        try:
            smaller = self._create(list(self.live), program)
        except KernelError:
            self.maps.unload(program)
            raise
        larger, self._link, self._epoch = self._link, smaller, epoch
        old_program, self._program = self._program, program
        self._size = len(self.live)
        before = os.sched_getaffinity(0)
        for cpu in range(self.maps.layout.cpus):
            # An offline CPU has no hits. On one that we may not run on, a hit half-way through may
            # count twice or not at all.
            with suppress(OSError):
                os.sched_setaffinity(0, {cpu})
            self._epochs.cells[cpu] = epoch
        self._missed_by_old_links = sum_or_unknown(
            self._missed_by_old_links,
            if_allowed(bpf.link_missed, larger),
            if_allowed(bpf.prog_misses, old_program),
        )
        _close(larger, remains)
        self.maps.unload(old_program)
        # Fails if our cpuset shrank meanwhile; the kernel has chosen CPUs for us then.
        with suppress(OSError):
            os.sched_setaffinity(0, before)

    def missed(self) -> int | None:
        if self._link < 0:
            return self._final_missed
        return sum_or_unknown(
            self._missed_by_old_links,
            if_allowed(bpf.link_missed, self._link),
            if_allowed(bpf.prog_misses, self._program),
        )


def _close(link: int, remains: Remains | None) -> None:
    if remains is None:
        fds.close(link)
    else:
        remains.fds.append(link)
