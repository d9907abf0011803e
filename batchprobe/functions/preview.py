# SPDX-License-Identifier: Apache-2.0
"""Previews a function list: resolves it on the running kernel without attaching anything."""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe import arch
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.functions.cache import SymbolCache
from batchprobe.functions.resolve import resolve
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Reason, Resolution, Skipped
from batchprobe.kernel.host import require_tracing

__all__ = ["preview"]


def preview(specs: Sequence[ProbeSpec]) -> Resolution:
    """Resolve the entries, and skip functions requested by name that ftrace does not list.

    `Session.attach` tries those, because only the kernel can tell whether it accepts them.
    Raises UnsupportedError if this process cannot trace.
    """
    require_tracing()
    table = FunctionTable.from_kernel(cache=SymbolCache())
    found = resolve(specs, table, syscall_prefixes=arch.current().syscall_prefixes)
    likely = []
    for target in found.targets:
        if target.function is not None and table.is_traceable(target.function) is False:
            skip = Skipped(
                target.spec.text,
                target.spec.source,
                Reason.NOTRACE,
                "ftrace does not list it; kernels without CONFIG_KPROBE_EVENTS_ON_NOTRACE refuse"
                " probes on it",
            )
            found.skipped.append(skip)
        else:
            likely.append(target)
    return Resolution(likely, found.skipped, found.omitted)
