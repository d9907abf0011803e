# SPDX-License-Identifier: Apache-2.0
"""`perf`: a perf kprobe per probe (Linux 4.17), the kernel object that bcc's attach_kprobe creates.

It is opened by address with perf_event_open(2) directly. bcc drops errno, cannot reach namesakes,
and falls back to a trace event of its own when the kernel refuses.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Sequence

from batchprobe.attach.base import (
    FEW,
    AttachContext,
    Attachment,
    Refusal,
    if_allowed,
    sum_or_unknown,
)
from batchprobe.attach.kprobe import NO_SITE, load, map_ips, sites
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.commit.queue import Reclaimed, Remains
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.probe import Probe
from batchprobe.sys import bpf, fds, perf
from batchprobe.sys.files import read_text

__all__ = ["NAME", "PerfAttachment", "attach"]

NAME = "perf"
_PMU = "/sys/bus/event_source/devices/kprobe/type"


def attach(probes: Sequence[Probe], context: AttachContext, attached: AttachOutcome) -> None:
    """Open a perf event per probe; entry and return probes differ in their program."""
    try:
        pmu = int(read_text(_PMU))
    except OSError as error:
        raise UnsupportedError(f"this kernel has no perf kprobes: {error}") from error
    _raise_file_limit(len(probes))
    attached.add(
        probes,
        context,
        lambda wanted, is_return, beside: PerfAttachment(
            wanted, context, pmu, is_return=is_return, beside=beside
        ),
    )


def _raise_file_limit(more: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) + more + 64
    if soft < wanted:
        # Beyond the hard limit, probes are refused one by one with EMFILE.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


class PerfAttachment(Attachment):
    """A bundle of perf kprobes. Each has its own kernel object, so every detach is dirty."""

    _QUICK = FEW

    def __init__(
        self,
        probes: Sequence[Probe],
        context: AttachContext,
        pmu: int,
        *,
        is_return: bool,
        beside: Attachment | None = None,
    ) -> None:
        super().__init__(probes, context, ips=context.arch.max_ips, beside=beside)
        self._pmu = pmu
        self._is_return = is_return
        # Of links where they report misses, else of perf events.
        self._fds: dict[Probe, int] = {}
        self._reports_misses: bool | None = None
        """Whether the kernel does; None before it was tried."""
        # Of probes that are gone: misses by probe, where there are any, and their sum.
        self._missed_in: dict[Probe, int] = {}
        self._missed: int | None = 0

    def attach(self, context: AttachContext) -> None:
        self._program = load(self.maps, context, is_return=self._is_return)
        self._fill(context)
        for probe in list(self.live):
            self._open(probe, context)
            context.progress(1)

    def _open(self, probe: Probe, context: AttachContext) -> None:
        is_pending = probe.target.function is None
        detail = "a perf kprobe cannot wait for a module" if is_pending else NO_SITE
        refusal = Refusal(probe, 0, detail)
        for site in () if is_pending else sites(probe, context):
            probe.offset, probe.placement = site.offset, site.placement
            try:
                self._fds[probe] = perf.open_kprobe(
                    self._pmu, probe.address or 0, is_return=probe.target.is_return
                )
                map_ips(self.maps, [probe], context.arch)
                self._run(probe)
            except KernelError as error:
                if not refusal.errno:
                    refusal = Refusal(probe, error.errno, str(error))
                if probe in self._fds:
                    fds.close_all(self._take_fds([probe]))
            else:
                probe.abi = NAME
                return
        self.live.pop(probe)
        self.refused.append(refusal)

    def _run(self, probe: Probe) -> None:
        """Run the program at each hit: through a link where that reports misses, else without one,
        because a link is slower to remove.
        """
        event = self._fds[probe]
        link = -1 if self._reports_misses is False else self._link(event)
        if link < 0:
            perf.enable(event, self._program)
        else:
            # The link keeps the event open.
            self._fds[probe] = link
            fds.close(event)

    def _link(self, event: int) -> int:
        """A link from the event to the program; -1 where it would be of no use."""
        try:
            link = bpf.perf_link(self._program, event)
        except KernelError as error:
            if self._reports_misses is not None or error.errno != errno.EINVAL:
                raise
            self._reports_misses = False
            return -1
        if self._reports_misses is None:
            self._reports_misses = if_allowed(bpf.perf_link_missed, link) is not None
        if self._reports_misses:
            return link
        fds.close(link)
        return -1

    def _take_fds(self, probes: Iterable[Probe]) -> list[int]:
        return [self._fds.pop(probe) for probe in probes if probe in self._fds]

    @property
    def is_empty(self) -> bool:
        return not self._fds

    def reclaim(self, gone: Sequence[Probe], remains: Remains | None = None) -> Reclaimed:
        self._forget(gone)
        self._keep_misses(gone)
        if remains is None:
            fds.close_all(self._take_fds(gone))
        else:
            remains.fds += self._take_fds(gone)
        if not self.live:
            self._close_maps()
        return Reclaimed(dirty=len(gone))

    # -- missed hits ---------------------------------------------------------------------------

    def _keep_misses(self, gone: Sequence[Probe]) -> None:
        """Read what only their links report, and after the last one also the program's misses."""
        links = [probe for probe in gone if probe in self._fds] if self._reports_misses else []
        for probe in links:
            missed = self._missed_by(probe)
            self._missed = sum_or_unknown(self._missed, missed)
            if missed:
                self._missed_in[probe] = missed
        if links and not self.live:
            self._missed = sum_or_unknown(self._missed, if_allowed(bpf.prog_misses, self._program))

    def _missed_by(self, probe: Probe) -> int | None:
        return if_allowed(bpf.perf_link_missed, self._fds[probe])

    def missed(self) -> int | None:
        if not self._reports_misses:
            # kprobe_profile does not list perf kprobes.
            return None
        if not self.live:
            return self._missed
        return sum_or_unknown(
            self._missed,
            if_allowed(bpf.prog_misses, self._program),
            *map(self._missed_by, self.live),
        )

    def missed_in(self) -> Sequence[Probe]:
        return sorted(self._missed_in, key=self._missed_in.__getitem__, reverse=True)
