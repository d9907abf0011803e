"""Give each target to the first probe ABI that takes it, and say why the others got none."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from batchprobe.attach import abis
from batchprobe.errors import UnsupportedError
from batchprobe.functions.targets import Reason, Skipped
from batchprobe.probe import Probe

if TYPE_CHECKING:
    from batchprobe.attach.abis import Attached, Context, Refusal
    from batchprobe.functions.table import FunctionTable
    from batchprobe.functions.targets import Target

__all__ = ["carry"]


def carry(
    targets: Sequence[Target],
    context: Context,
    attached: Attached,
    *,
    abi: str,
    distrusted: Callable[[str], Mapping[str, str]],
) -> tuple[list[Probe], list[Skipped]]:
    """Attach a probe to each target, by `abi`, or by those of the architecture if it is "auto".

    `distrusted` tells of an ABI where its probes would count wrongly: see `Context`.
    Returns the probes that are attached, gates closed, and why the others are not. What was made is
    in `attached`, also after an error. Raises UnsupportedError if no ABI can carry anything here.
    """
    everything = [Probe(target) for target in targets]
    waiting = everything
    refusals: dict[Probe, Refusal] = {}
    unsupported: UnsupportedError | None = None
    for name in (abi,) if abi != "auto" else context.arch.abi_order:
        try:
            abis.ABIS[name](waiting, context._replace(distrusted=distrusted(name)), attached)
        except UnsupportedError as error:
            unsupported = error
            continue
        unsupported = attached.unsupported or unsupported
        for refusal in attached.refused:
            # What the kernel said tells more than what an ABI cannot express.
            if refusal.errno or refusal.probe not in refusals:
                refusals[refusal.probe] = refusal
        waiting = [refusal.probe for refusal in attached.refused]
        attached.refused = []
        if not waiting:
            break
    tried = any(refusal.errno for refusal in refusals.values())
    if not attached.carriers and not tried and unsupported is not None:
        raise unsupported
    lost = set(waiting)
    return (
        [probe for probe in everything if probe not in lost],
        [_skip(refusals[probe], context.table) for probe in waiting],
    )


def _skip(refusal: Refusal, table: FunctionTable) -> Skipped:
    """A refusal as a person can act on it: errno means this much in a probe's attach."""
    target = refusal.probe.target
    traceable = target.function is None or table.is_traceable(target.function)
    reason, detail = {
        errno.EILSEQ: (Reason.NOT_AN_INSTRUCTION, f"{target.label} is inside an instruction"),
        errno.EADDRNOTAVAIL: (Reason.AMBIGUOUS, "several functions have this name: use 0xADDRESS"),
        errno.ENOENT: (Reason.UNKNOWN, refusal.detail),
        0: (Reason.UNSUPPORTED, refusal.detail),
    }.get(refusal.errno, (Reason.REFUSED, refusal.detail))
    if reason is not Reason.NOT_AN_INSTRUCTION and traceable is False:
        reason, detail = Reason.NOTRACE, "ftrace does not list it, and the kernel takes no kprobe"
    return Skipped(target.spec.text, target.spec.source, reason, detail)
