"""The probe ABIs, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from batchprobe.attach.base import (
    Attached,
    Carrier,
    Context,
    Placement,
    Refusal,
    hit_ips,
    sum_of_known,
)
from batchprobe.errors import UnsupportedError

if TYPE_CHECKING:
    from batchprobe.probe import Probe

__all__ = [
    "ABIS",
    "Attached",
    "Carrier",
    "Context",
    "Placement",
    "Refusal",
    "hit_ips",
    "sum_of_known",
]


# A function without which the kernel has not what the ABI stands on, and what to tell then.
_NEEDED = {
    "multi": (
        "register_fprobe_ips",
        "this kernel has no kprobe_multi links",
        "they need Linux 5.18 with CONFIG_FPROBE; --abi auto takes another ABI",
    )
}


def _abi(name: str) -> Callable[[Sequence[Probe], Context, Attached], None]:
    def attach(probes: Sequence[Probe], context: Context, attached: Attached) -> None:
        function, lacking, remedy = _NEEDED.get(name, ("", "", ""))
        if function and context.table.symbol_address(function) is None:
            raise UnsupportedError(lacking, remedy=remedy)
        # Imported when first used: mostly one will do.
        module = import_module(f"batchprobe.attach.{_MODULES[name]}")
        module.attach(probes, context, attached)

    return attach


_MODULES = {"multi": "kprobe_multi", "event": "trace_event", "perf": "perf_kprobe"}

ABIS = {name: _abi(name) for name in ("multi", "event", "perf")}
