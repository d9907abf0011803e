# SPDX-License-Identifier: Apache-2.0
"""Gives hits in modules that were loaded after the attach to their probes.

A probe on a function of an unloaded module has no address, so its hits are counted by instruction
pointer until somebody looks. Each look has to come while the module is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from batchprobe import arch
from batchprobe.attach.base import Attachment
from batchprobe.attach.kprobe import hit_ips
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.probe import Probe, ProbeState

__all__ = ["claim_hits"]


def claim_hits(
    attachments: Iterable[Attachment], probes: Collection[Probe], symbols: KernelSymbols
) -> None:
    """Find the probe of each instruction pointer that has hits and no slot."""
    unknown = [
        (attachment, ip)
        for attachment in attachments
        if attachment.live and attachment.maps.has_unclaimed
        for ip in attachment.maps.unclaimed_hits()
    ]
    if not unknown:
        return
    table = symbols.table()
    waiting: dict[tuple[Attachment, str, str], list[Probe]] = {}
    for probe in probes:
        target = probe.target
        if probe.state is not ProbeState.DETACHED and target.module:
            key = (probe.attachment, target.module, target.name)
            waiting.setdefault(key, []).append(probe)
    adapter = arch.current()
    for attachment, ip in unknown:
        found = table.function_at(ip)
        if found is None:
            continue
        function, _ = found
        for probe in waiting.get((attachment, function.module, function.name), ()):
            if ip in hit_ips(probe, function, adapter):
                attachment.claim(ip, probe, function)
