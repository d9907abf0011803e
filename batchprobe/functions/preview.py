"""What a list comes to on the running kernel, before anything is attached."""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe import arch
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.functions.cache import BootMemory
from batchprobe.functions.resolve import resolve
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Reason, Resolution, Skipped
from batchprobe.kernel.host import require_tracing
from batchprobe.kernel.tracefs import Tracefs

__all__ = ["plan"]


def plan(specs: Sequence[ProbeSpec]) -> Resolution:
    """Resolve the entries; functions asked for by name that ftrace does not list are skips here.

    The kernel has the last word on those: see `Session.attach`.
    """
    require_tracing()
    table = FunctionTable.from_kernel(Tracefs.find().root, memory=BootMemory())
    found = resolve(specs, table, syscall_prefixes=arch.current().syscall_prefixes)
    likely = []
    for target in found.targets:
        if target.function is not None and table.is_traceable(target.function) is False:
            skip = Skipped(
                target.spec.text,
                target.spec.source,
                Reason.NOTRACE,
                "ftrace does not list it: kernels with notrace protection take no kprobe there",
            )
            found.skipped.append(skip)
        else:
            likely.append(target)
    return Resolution(likely, found.skipped, found.left_out)
