# SPDX-License-Identifier: Apache-2.0
"""Gives each target to the first probe ABI that takes it, and says why the others got no probe."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence

from batchprobe._util.counted import counted
from batchprobe.attach import abis
from batchprobe.attach.base import AttachContext, Refusal
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.errors import (
    BatchprobeError,
    NothingAttachedError,
    UnsupportedError,
    VerifierError,
    verifier_reason,
)
from batchprobe.filters.base import ProbeKind
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Reason, Skipped, Target
from batchprobe.probe import Probe

__all__ = ["select"]

_JIT_ON = "sysctl -w net.core.bpf_jit_enable=1"


def select(
    targets: Sequence[Target],
    context: AttachContext,
    attached: AttachOutcome,
    *,
    abi: str,
    calibrated: Callable[[str], AttachContext],
) -> tuple[list[Probe], list[Skipped]]:
    """Attach a probe to each target, by `abi`, or if that is "auto" by the architecture's ABIs.

    `calibrated` is asked for the context of each ABI in use.
    Returns the attached probes, whose gates are closed, and why the others are missing. `attached`
    has all kernel objects, after an error too. Raises UnsupportedError if no ABI works here, or if
    the kernel refuses our program; NothingAttachedError if it refuses one with C of the caller.
    """
    everything = [Probe(target) for target in targets]
    total = counted(len(everything), "probe")
    waiting = everything
    refusals: dict[Probe, Refusal] = {}
    unsupported: UnsupportedError | None = None
    for name in (abi,) if abi != "auto" else context.arch.abi_order:
        if abi == "auto" and name == "multi" and context.action.kind is ProbeKind.CALL:
            from batchprobe.attach.calls import why_no_link  # noqa: PLC0415  (few need it)

            if why := why_no_link(waiting, context):
                context.explain(f"the ABI {name} is passed over: {why}")
                continue
        context.explain(f"trying the ABI {name} for {len(waiting)} of {total}")
        try:
            abis.attach(name, waiting, calibrated(name), attached)
        except UnsupportedError as error:
            context.explain(f"the ABI {name} is passed over: {error}")
            unsupported = error
            continue
        unsupported = attached.unsupported or unsupported
        for refusal in attached.refused:
            # The kernel's reason is worth more than that of an ABI which cannot express the probe.
            if refusal.errno or refusal.probe not in refusals:
                refusals[refusal.probe] = refusal
        waiting = [refusal.probe for refusal in attached.refused]
        attached.refused = []
        if not waiting:
            break
        context.explain(_refused(name, [refusals[probe] for probe in waiting]))
    tried = any(refusal.errno for refusal in refusals.values())
    if not attached.attachments and not tried and unsupported is not None:
        raise unsupported
    if len(waiting) == len(everything) and (verdicts := _verdicts(refusals.values())):
        is_ours = not (context.action.source or context.filters)
        raise _program_refused(verdicts[0], is_ours=is_ours) from verdicts[0]
    lost = set(waiting)
    return (
        [probe for probe in everything if probe not in lost],
        [_skip(refusals[probe], context.table) for probe in waiting],
    )


def _refused(abi: str, refusals: Sequence[Refusal]) -> str:
    first = refusals[0]
    more = f", and {len(refusals) - 1} more" if refusals[1:] else ""
    return f"the ABI {abi} refused {first.probe.label} ({first.detail}){more}"


def _verdicts(refusals: Iterable[Refusal]) -> list[VerifierError]:
    """What the verifier said, if a refused program is why each of these has no probe."""
    verdicts = [_verdict(refusal) for refusal in refusals]
    found = [verdict for verdict in verdicts if verdict is not None]
    return found if len(found) == len(verdicts) else []


def _verdict(refusal: Refusal) -> VerifierError | None:
    return refusal.cause if isinstance(refusal.cause, VerifierError) else None


def _program_refused(verdict: VerifierError, *, is_ours: bool) -> BatchprobeError:
    reason = verifier_reason(verdict.log)
    message = f"the kernel refuses the program: {reason or verdict}"
    if not is_ours:
        return NothingAttachedError(message)
    return UnsupportedError(message, remedy=_JIT_ON if verdict.needs_jit else "")


def _skip(refusal: Refusal, table: FunctionTable) -> Skipped:
    """A refusal as users can act on it: what each errno means when a probe is attached."""
    target = refusal.probe.target
    label = target.label if target.label != str(target.spec) else ""
    if refusal.cause is not None:
        verdict = _verdict(refusal)
        why = verifier_reason(verdict.log) if verdict else ""
        reason = Reason.REFUSED if refusal.errno else Reason.UNSUPPORTED
        detail = f"{refusal.detail}: {why}" if why else refusal.detail
        return Skipped(target.spec.text, target.spec.source, reason, detail, label)
    traceable = target.function is None or table.is_traceable(target.function)
    reason, detail = {
        errno.EILSEQ: (Reason.NOT_AN_INSTRUCTION, f"{target.label} is inside an instruction"),
        errno.EADDRNOTAVAIL: (Reason.AMBIGUOUS, _several(target)),
        errno.ENOENT: (Reason.UNKNOWN, refusal.detail),
        0: (Reason.UNSUPPORTED, refusal.detail),
    }.get(refusal.errno, (Reason.REFUSED, refusal.detail))
    if reason is not Reason.NOT_AN_INSTRUCTION and traceable is False:
        reason, detail = Reason.NOTRACE, "ftrace does not list it, and the kernel takes no kprobe"
    return Skipped(target.spec.text, target.spec.source, reason, detail, label)


def _several(target: Target) -> str:
    where = "0xADDRESS" if target.address is None else f"{target.address:#x}"
    return f"several functions have this name: write {where}"
