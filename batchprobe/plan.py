"""What a list comes to on the running kernel, before anything is attached."""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe import arch
from batchprobe.kernel.features import require_tracing
from batchprobe.kernel.memory import BootMemory
from batchprobe.kernel.resolve import resolve
from batchprobe.kernel.symbols import FunctionTable
from batchprobe.kernel.targets import Reason, Resolution, Skipped
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.spec import ProbeSpec

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
