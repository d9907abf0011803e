# SPDX-License-Identifier: Apache-2.0
"""The probe ABIs by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from batchprobe.attach.base import AttachContext
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.errors import UnsupportedError
from batchprobe.probe import Probe

__all__ = ["ABIS", "attach"]

_MODULES = {"multi": "kprobe_multi", "event": "trace_event", "perf": "perf_kprobe"}
ABIS = tuple(_MODULES)
"""`multi`: a kprobe_multi link. `event`: a trace event. `perf`: a perf kprobe per probe."""

# By ABI: a kernel function without which the kernel cannot have it, the message and the remedy.
# Looking it up is cheaper than importing the module and loading a program.
_NEEDED = {
    "multi": (
        "register_fprobe_ips",
        "this kernel has no kprobe_multi links",
        "they need Linux 5.18 with CONFIG_FPROBE; --abi auto takes another ABI",
    )
}


def attach(
    name: str, probes: Sequence[Probe], context: AttachContext, attached: AttachOutcome
) -> None:
    """Attach probes by this ABI, and add the result to `attached`.

    Raises UnsupportedError where the kernel does not have the ABI.
    """
    if needed := _NEEDED.get(name):
        function, message, remedy = needed
        if context.table.symbol_address(function) is None:
            raise UnsupportedError(message, remedy=remedy)
    # A start uses one ABI, mostly: the others are not imported.
    module = import_module(f"batchprobe.attach.{_MODULES[name]}")
    by_abi: Callable[[Sequence[Probe], AttachContext, AttachOutcome], None] = module.attach
    by_abi(probes, context, attached)
