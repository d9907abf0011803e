# SPDX-License-Identifier: Apache-2.0
"""Whether probes on this kernel report what the architecture's adapter says: tried, not trusted.

A kernel function that nobody else calls with such an argument is called once, with a probe of each
kind on it. The hit, what names the probe (instruction pointer or function), the argument's register
and the CPU are compared with the adapter. A kind of probe that reports anything else would count
wrongly and is not used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from batchprobe.actions.count import Count
from batchprobe.arch import Arch
from batchprobe.attach import abis
from batchprobe.attach.base import AttachContext, Attachment, Placement
from batchprobe.attach.calibration_program import CPU, HITS, IP, RIGHT, UNKNOWN_IP, programs
from batchprobe.attach.kprobe import hit_ips
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.commit.queue import RemovalFailure
from batchprobe.errors import UnsupportedError
from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import Source
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe

__all__ = ["VARIANTS", "Observation", "Variant", "calibrate", "call", "target", "undo"]

# find_task_by_vpid(nr), which getpgid(2) calls (kernel/pid.c, kernel/sys.c). It finds no task and
# returns NULL, because process IDs end at 2^22.
_FUNCTION = "find_task_by_vpid"
_NUMBER = 0x3FABCDEF
# The kernel skips a handler that interrupts another one: then try again.
_TRIES = 3


class Variant(NamedTuple):
    """A way to probe."""

    abi: str
    placement: str
    """`entry`, `after` (after the entry patch site), or `return`."""


VARIANTS = tuple(
    Variant(abi, placement)
    for abi in abis.ABIS
    for placement in ("entry", "after", "return")
    if (abi, placement) != ("multi", "after")
)


class Observation(NamedTuple):
    """What trying one kind of probe showed."""

    refused: str
    """Why there is no such probe; empty if the kernel took it."""
    wrong: str
    """What it reports that the adapter does not say; empty if nothing."""
    offset: int = 0
    """Bytes from the function's symbol to the probe."""
    ip: int | None = None
    """What named the hit, in bytes from the symbol; None if that is no address."""


def target(table: FunctionTable) -> Target:
    """The function to probe. Raises UnsupportedError on a kernel without it."""
    [entry] = parse_line(_FUNCTION, Source("<calibration>", 1))
    functions = table.named(_FUNCTION)
    if not functions:
        raise UnsupportedError(f"there is no function {_FUNCTION} to try probes on")
    return Target(_FUNCTION, entry, functions[0])


def calibrate(
    context: AttachContext,
    probed: Target,
    variants: Sequence[Variant],
    discard: Callable[[Sequence[Attachment]], Sequence[RemovalFailure]],
) -> Iterator[tuple[Variant, Observation, Sequence[RemovalFailure]]]:
    """Try these kinds of probe, one after another.

    `discard` removes the kernel objects of one and returns what it could not remove.
    """
    for variant in variants:
        yield (variant, *_try(variant, context, probed, discard))


def undo(attachments: Sequence[Attachment]) -> Sequence[RemovalFailure]:
    """A `discard` for callers without a session."""
    return [
        failure
        for attachment in attachments
        for failure in attachment.reclaim(list(attachment.live)).failed
    ]


def _try(
    variant: Variant,
    context: AttachContext,
    probed: Target,
    discard: Callable[[Sequence[Attachment]], Sequence[RemovalFailure]],
) -> tuple[Observation, Sequence[RemovalFailure]]:
    is_return = variant.placement == "return"
    spec = probed.spec.with_changes(is_return=is_return)
    probe = Probe(Target(probed.label, spec, probed.function))
    own = context.with_changes(
        placement=Placement.AFTER if variant.placement == "after" else Placement.ENTRY,
        programs=programs(context.arch, is_return=is_return, argument=_NUMBER),
        action=Count(),
        filters=(),
        taken=(),
        distrusted={},
        progress=lambda _count: None,
    )
    attached = AttachOutcome()
    try:
        try:
            abis.attach(variant.abi, [probe], own, attached)
        except UnsupportedError as error:
            observation = Observation(error.message, "")
        else:
            observation = _observation(variant, probe, context.arch, attached)
    finally:
        failures = discard((*attached.attachments, *attached.abandoned))
    return observation, failures


def _observation(
    variant: Variant, probe: Probe, arch: Arch, attached: AttachOutcome
) -> Observation:
    if attached.refused:
        return Observation(attached.refused[0].detail, "")
    if variant.placement == "after" and probe.placement != "after":
        return Observation(
            f"{_FUNCTION} begins in an unknown way, or is taken at its entry only", ""
        )
    function = probe.target.function
    address = 0 if function is None else function.address
    if variant.abi == "multi" or function is None:
        expected: tuple[int, ...] = (probe.address or 0,)
    else:
        expected = hit_ips(probe, function, arch)
    wrong = ""
    ip = 0
    maps = probe.holder.maps
    for _ in range(_TRIES):
        before = [maps.hits_of(slot) for slot in (HITS, RIGHT)]
        cpu = _call_on_last_cpu()
        hits, right = (
            maps.hits_of(slot) - was for slot, was in zip((HITS, RIGHT), before, strict=True)
        )
        ip = maps.hits_of(IP)
        wrong = _wrong(hits, right, ip, expected, variant, address)
        if not wrong and (variant.abi == "multi" or not arch.cpu_id_unreliable):
            # Links that take over from each other go by the CPU, and plain additions need it.
            wrong = _wrong_cpu(maps.hits_of(CPU), cpu)
        if not wrong:
            break
    return Observation("", wrong, probe.offset, ip - address if ip != UNKNOWN_IP else None)


def _call_on_last_cpu() -> int:
    """Call the function on the last CPU that we may run on; returns the CPU's number."""
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        call()
    finally:
        os.sched_setaffinity(0, before)
    return cpu


def call() -> None:
    """Call the function once."""
    with suppress(ProcessLookupError):
        os.getpgid(_NUMBER)


def _wrong_cpu(reported: int, cpu: int) -> str:
    if reported == cpu:
        return ""
    return (
        f"a program on CPU {cpu} reads that it runs on CPU {reported}; some kernels do that unless "
        "programs are JIT-compiled: sysctl net.core.bpf_jit_enable=1"
    )


def _wrong(
    hits: int, right: int, ip: int, expected: tuple[int, ...], variant: Variant, address: int
) -> str:
    if not hits:
        return f"a call of {_FUNCTION} was not counted"
    if right != 1:
        register = "the result" if variant.placement == "return" else "the first argument"
        return f"in a call of {_FUNCTION}, {register} is not where it should be"
    if ip not in (UNKNOWN_IP, *expected):
        wanted = ", ".join(f"{one - address:+d}" for one in expected)
        return f"a hit reports {ip - address:+d} from its function, not {wanted}"
    return ""
