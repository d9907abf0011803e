"""The probe ABIs, by name."""

from __future__ import annotations

from batchprobe._typing import TYPE_CHECKING
from batchprobe.abi.base import (
    Attached,
    Carrier,
    Context,
    Placement,
    Refusal,
    hit_ips,
    sum_of_known,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def _abi(name: str) -> Callable[[Sequence[Probe], Context, Attached], None]:
    def attach(probes: Sequence[Probe], context: Context, attached: Attached) -> None:
        # Imported when first used: mostly one will do.
        module = getattr(__import__(f"{__name__}.{name}").abi, name)
        module.attach(probes, context, attached)

    return attach


ABIS = {name: _abi(name) for name in ("multi", "event", "perf")}
