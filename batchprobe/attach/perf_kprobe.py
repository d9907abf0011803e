# SPDX-License-Identifier: Apache-2.0
"""`perf`: a perf kprobe per probe (Linux 4.17), the kernel object that bcc's attach_kprobe creates.

It is opened by address with perf_event_open(2) directly. bcc drops errno, cannot reach namesakes,
and falls back to a trace event of its own when the kernel refuses.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Sequence

from batchprobe.attach.base import FEW, AttachContext, Attachment, AttachOutcome, Refusal
from batchprobe.attach.kprobe import NO_SITE, load, map_ips, sites
from batchprobe.commit.queue import Reclaimed, Remains
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.probe import Probe
from batchprobe.sys import fds, perf
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
        lambda wanted, is_return: PerfAttachment(wanted, context, pmu, is_return=is_return),
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
        self, probes: Sequence[Probe], context: AttachContext, pmu: int, *, is_return: bool
    ) -> None:
        super().__init__(probes, context, ips=context.arch.max_ips)
        self._pmu = pmu
        self._is_return = is_return
        self._fds: dict[Probe, int] = {}

    def attach(self, context: AttachContext) -> None:
        program = load(self.maps, context, is_return=self._is_return)
        self._fill(context)
        for probe in list(self.live):
            self._open(probe, context, program)
            context.progress(1)

    def _open(self, probe: Probe, context: AttachContext, program: int) -> None:
        is_pending = probe.target.function is None
        detail = "a perf kprobe cannot wait for a module" if is_pending else NO_SITE
        refusal = Refusal(probe, 0, detail)
        for site in () if is_pending else sites(probe, context):
            probe.offset, probe.placement = site.offset, site.placement
            try:
                self._fds[probe] = fd = perf.open_kprobe(
                    self._pmu, probe.address or 0, is_return=probe.target.is_return
                )
                map_ips(self.maps, [probe], context.arch)
                perf.enable(fd, program)
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

    def _take_fds(self, probes: Iterable[Probe]) -> list[int]:
        return [self._fds.pop(probe) for probe in probes if probe in self._fds]

    @property
    def is_empty(self) -> bool:
        return not self._fds

    def reclaim(self, gone: Sequence[Probe], remains: Remains | None = None) -> Reclaimed:
        self._forget(gone)
        if remains is None:
            fds.close_all(self._take_fds(gone))
        else:
            remains.fds += self._take_fds(gone)
        if not self.live:
            self.maps.close()
        return Reclaimed(dirty=len(gone))

    def missed(self) -> int | None:
        # kprobe_profile does not list perf kprobes.
        return None
