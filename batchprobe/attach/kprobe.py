# SPDX-License-Identifier: Apache-2.0
"""What every kprobe has in common: where it may stand, what names its hits, which program it runs.

Trace events and perf kprobes are made of these; a kprobe_multi link is not (its kernel object is an
fprobe), and needs nothing from here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from batchprobe.arch import Arch
from batchprobe.attach.base import AttachContext, Placement
from batchprobe.errors import KernelError
from batchprobe.filters.base import ProbeKind
from batchprobe.functions.table import Function
from batchprobe.probe import Probe
from batchprobe.programs.maps import MapSpec
from batchprobe.programs.probe_maps import ProbeMaps

__all__ = ["NO_SITE", "Site", "hit_ips", "load", "map_ips", "sites"]

NO_SITE = "no usable probe site in this function"


class Site:
    """Where a probe may stand: bytes from the function's symbol, and `Probe.placement`.

    A doubtful one may be refused, because the kernel may patch the instruction there.
    """

    __slots__ = ("is_doubtful", "offset", "placement")

    def __init__(self, offset: int, placement: str, is_doubtful: bool = False) -> None:
        self.offset = offset
        self.placement = placement
        self.is_doubtful = is_doubtful


def sites(probe: Probe, context: AttachContext) -> tuple[Site, ...]:
    """The sites to try, in order: after the entry patch site where the architecture prefers that
    and the function's code allows it, then the entry.

    `TraceEventAttachment` may later move a probe to the entry (`_move_to_entry`).
    """
    target = probe.target
    arch, placement = context.arch, context.placement
    if target.offset:
        return (Site(target.offset, "offset"),)
    if target.function is None:
        # Defined by name: the kernel finds the site when the module is loaded, and reports nothing
        # if it is a bad one. A return probe has to stand at the entry.
        if arch.offset_in_unloaded_module and not context.action.needs_entry(probe):
            return () if target.is_return else (Site(arch.offset_in_unloaded_module, "after"),)
        return (Site(0, "entry"),)
    inside = (
        not target.is_return
        and not context.action.needs_entry(probe)
        and (placement is Placement.AFTER or (placement is Placement.AUTO and arch.prefers_after))
    )
    code = context.code(probe) if inside or arch.entry_depends_on_code else None
    found = [Site(arch.entry(code), "entry")]
    if target.is_return:
        return tuple(found)
    after = arch.after_patch_site(code) if inside and code else None
    if code and after is not None and target.function.address + after not in context.taken:
        found.insert(0, Site(after, "after", arch.may_patch(code, after)))
    return tuple(site for site in found if site.placement not in context.distrusted)


def hit_ips(probe: Probe, function: Function, arch: Arch) -> tuple[int, ...]:
    """The instruction pointers that name a hit of the probe: see `Arch`."""
    if probe.target.is_return:
        return arch.return_probe_ips(function.address, probe.offset)
    return arch.hit_ips(function.address, probe.offset)


def map_ips(maps: ProbeMaps, probes: Iterable[Probe], arch: Arch) -> None:
    """Put the instruction pointers of these probes into the maps."""
    maps.map_ips(
        *(
            (ip, probe.slot)
            for probe in probes
            if (function := probe.target.function) is not None
            for ip in hit_ips(probe, function, arch)
        )
    )


def load(maps: ProbeMaps, context: AttachContext, *, is_return: bool) -> int:
    """Load the program that finds a kprobe's slot on this kernel; returns its descriptor."""
    if not is_return:
        return maps.load(context.programs["by_ip"])
    prefix = "return_" if context.action.kind is ProbeKind.CALL else ""
    try:
        return maps.load(context.programs[f"{prefix}by_func_ip"])
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        refused = error
    context.explain(f"without bpf_get_func_ip() (Linux 5.15), by current_kprobe: {refused}")
    wanted = ("__per_cpu_offset", "current_kprobe")
    symbols = maps.add_array(MapSpec.array("symbols", len(wanted)))
    for at, name in enumerate(wanted):
        address = context.table.symbol_address(name)
        if address is None:
            raise KernelError(f"{name} is not in kallsyms", errno.ENOENT) from refused
        symbols.cells[at] = address
    try:
        return maps.load(context.programs[f"{prefix}by_running_kprobe"])
    except KernelError as error:
        # Both have the action and the filters: the first refusal is about these, if they are bad.
        raise refused from error
