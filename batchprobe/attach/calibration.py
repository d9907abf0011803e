"""Whether probes here tell what the architecture's adapter says: tried, not trusted.

A kernel function that nobody else calls with such an argument is called once with a probe of each
kind on it. The hit, what names the probe (instruction pointer or function), the argument's
register and the CPU are compared with the adapter's words. A kind of probe that tells something
else would count wrongly: it is not used.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from batchprobe.arch import Arch
from batchprobe.attach import abis
from batchprobe.attach.abis import Attached, Carrier, Context, Placement
from batchprobe.commit.queue import Left
from batchprobe.errors import UnsupportedError
from batchprobe.funclist.spec import Source, parse_entry
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe
from batchprobe.programs.program import Program

__all__ = ["KINDS", "Finding", "Kind", "calibrate", "take_off", "target"]

# find_task_by_vpid(nr), which getpgid(2) calls (kernel/pid.c, kernel/sys.c). It finds nothing, and
# returns NULL: there are 2^22 process IDs at most.
_FUNCTION = "find_task_by_vpid"
_NUMBER = 0x3FABCDEF
# A handler that another one interrupted is skipped by the kernel: then once more.
_TRIES = 3
# Where the program counts: slots of its bank, of which only the first is a probe's.
_HITS, _RIGHT, _NAME, _CPU = 1, 2, 3, 4
# What stands for a name that nobody tells the program.
_UNTOLD = 1


class Kind(NamedTuple):
    """A way to probe."""

    abi: str
    # `entry`, `after` (behind the entry patch site), or `return`.
    place: str


KINDS = tuple(
    Kind(abi, place)
    for abi in abis.ABIS
    for place in ("entry", "after", "return")
    if (abi, place) != ("multi", "after")
)


class Finding(NamedTuple):
    """What came of one kind of probe."""

    # Empty if the kernel took the probe.
    refused: str
    # Empty if it told what the adapter says.
    wrong: str
    # How far behind its function's symbol it stood, and what the program was told there, likewise;
    # None if that is no address.
    offset: int = 0
    told: int | None = None


def target(table: FunctionTable) -> Target:
    """What is probed. Raises UnsupportedError on a kernel without such a function."""
    entry = parse_entry(_FUNCTION, Source("<calibration>", 1))
    functions = table.named(_FUNCTION)
    if entry is None or not functions:
        raise UnsupportedError(f"there is no function {_FUNCTION} to try probes on")
    return Target(_FUNCTION, entry, functions[0])


def calibrate(
    context: Context,
    probed: Target,
    kinds: Sequence[Kind],
    discard: Callable[[Sequence[Carrier]], Sequence[Left]],
) -> Iterator[tuple[Kind, Finding, Sequence[Left]]]:
    """Try these kinds of probe, each alone; `discard` takes them off and says what stays."""
    for kind in kinds:
        yield (kind, *_try(kind, context, probed, discard))


def take_off(carriers: Sequence[Carrier]) -> Sequence[Left]:
    """The `discard` of who has no session."""
    return [left for carrier in carriers for left in carrier.reclaim(list(carrier.live)).left]


def _try(
    kind: Kind,
    context: Context,
    probed: Target,
    discard: Callable[[Sequence[Carrier]], Sequence[Left]],
) -> tuple[Finding, Sequence[Left]]:
    is_return = kind.place == "return"
    spec = probed.spec._replace(is_return=is_return)
    probe = Probe(probed._replace(spec=spec))
    placement = Placement.AFTER if kind.place == "after" else Placement.ENTRY
    own = context._replace(
        placement=placement,
        programs=_programs(context.arch, is_return=is_return),
        taken=(),
        distrusted={},
        progress=lambda _count: None,
    )
    attached = Attached()
    try:
        try:
            abis.ABIS[kind.abi]([probe], own, attached)
        except UnsupportedError as error:
            finding = Finding(error.message, "")
        else:
            finding = _finding(kind, probe, context.arch, attached)
    finally:
        left = discard((*attached.carriers, *attached.failed))
    return finding, left


def _finding(kind: Kind, probe: Probe, arch: Arch, attached: Attached) -> Finding:
    if attached.refused:
        return Finding(attached.refused[0].detail, "")
    if kind.place == "after" and probe.placement != "after":
        return Finding(f"{_FUNCTION} begins in an unknown way, or is taken at its entry only", "")
    function = probe.target.function
    address = 0 if function is None else function.address
    if kind.abi == "multi":
        names: tuple[int, ...] = (probe.address or 0,)
    elif kind.place == "return":
        names = arch.return_probe_ips(address, probe.offset)
    else:
        names = arch.hit_ips(address, probe.offset)
    wrong = ""
    name = 0
    for _ in range(_TRIES):
        before = [probe.bank.count(slot) for slot in (_HITS, _RIGHT)]
        cpu = _call()
        hits, right = (
            probe.bank.count(slot) - was for slot, was in zip((_HITS, _RIGHT), before, strict=True)
        )
        name = probe.bank.count(_NAME)
        wrong = _wrong(hits, right, name, names, kind, address)
        if not wrong and (kind.abi == "multi" or not arch.may_tell_wrong_cpu):
            # A link that takes over from another goes by the CPU, and plain additions need it.
            wrong = _wrong_cpu(probe.bank.count(_CPU), cpu)
        if not wrong:
            break
    told = name - address if name != _UNTOLD else None
    return Finding("", wrong, probe.offset, told)


def _call() -> int:
    """Call the function, on the last CPU that we may run on; returns its number."""
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        with contextlib.suppress(ProcessLookupError):
            os.getpgid(_NUMBER)
    finally:
        os.sched_setaffinity(0, before)
    return cpu


def _wrong_cpu(told: int, cpu: int) -> str:
    if told == cpu:
        return ""
    return (
        f"a program on CPU {cpu} is told that it runs on CPU {told}, which is so on some kernels "
        "unless programs are compiled: sysctl net.core.bpf_jit_enable=1"
    )


def _wrong(
    hits: int, right: int, name: int, names: tuple[int, ...], kind: Kind, address: int
) -> str:
    if not hits:
        return f"a call of {_FUNCTION} was not counted"
    if right != 1:
        register = "the result" if kind.place == "return" else "the first argument"
        return f"of a call of {_FUNCTION}, {register} is not where it should be"
    if name not in (_UNTOLD, *names):
        said = ", ".join(f"{wanted - address:+d}" for wanted in names)
        return f"a hit is told to be at {name - address:+d} from its function, not at {said}"
    return ""


# -- the program, in raw instructions: it needs no compiler ----------------------------------

_LOAD = {32: 0x61, 64: 0x79}  # r = *(u32 *)(r + offset), *(u64 *)
_GET_CPU, _GET_FUNC_IP = 8, 173  # enum bpf_func_id


def _programs(arch: Arch, *, is_return: bool) -> dict[str, Program]:
    """For each program of bpf/ one that loads where that loads, and tells what it would go by."""
    registers = arch.registers
    ip = _instruction(_LOAD[arch.bits], dst=8, src=6, offset=registers.instruction_pointer)
    nothing = _instruction(0xB7, dst=8, value=_UNTOLD)
    ways = {
        "by_ip": ip,
        "by_link": _result_of(_GET_FUNC_IP),
        "by_func_ip": _result_of(_GET_FUNC_IP),
        "by_running_kprobe": nothing,
    }
    at, value = (registers.result, 0) if is_return else (registers.arguments[0], _NUMBER)
    return {name: _program(arch, way, at, value) for name, way in ways.items()}


def _result_of(helper: int) -> bytes:
    return (
        _instruction(0xBF, dst=1, src=6)  # r1 = r6
        + _instruction(0x85, value=helper)
        + _instruction(0xBF, dst=8, src=0)  # r8 = r0
    )


def _program(arch: Arch, way: bytes, at: int, value: int) -> Program:
    maps: list[tuple[int, str]] = []
    code = bytearray()

    def emit(*instructions: bytes) -> None:
        for instruction in instructions:
            code.extend(instruction)

    def lookup(slot: int) -> None:
        """r0 = &counts[slot]; leaves if there is none."""
        emit(
            _instruction(0x62, dst=10, offset=-4, value=slot),  # *(u32 *)(fp - 4) = slot
            _instruction(0xBF, dst=2, src=10),  # r2 = fp
            _instruction(0x07, dst=2, value=-4),  # r2 -= 4
        )
        maps.append((len(code) // 8, "counts"))
        emit(
            _instruction(0x18, dst=1, src=1),  # r1 = the map, in two instructions
            _instruction(0),
            _instruction(0x85, value=1),  # r0 = bpf_map_lookup_elem(r1, r2)
            _instruction(0x55, dst=0, offset=1),  # if r0 != 0: skip one
            _instruction(0x95),  # return
        )

    def count(slot: int) -> None:
        lookup(slot)
        emit(
            _instruction(0x79, dst=1, src=0),  # r1 = *r0
            _instruction(0x07, dst=1, value=1),  # r1 += 1
            _instruction(0x7B, dst=0, src=1),  # *r0 = r1
        )

    emit(
        _instruction(0xBF, dst=6, src=1),  # r6 = the context
        _instruction(_LOAD[arch.bits], dst=7, src=6, offset=at),
        _instruction(0x67, dst=7, value=32),  # r7 <<= 32: an int has no more
        _instruction(0x77, dst=7, value=32),  # r7 >>= 32
        way,
    )
    count(_HITS)
    emit(
        _instruction(0xB7, dst=0),  # r0 = 0
        _instruction(0x15, dst=7, offset=1, value=value),  # if r7 == value: skip one
        _instruction(0x95),  # return r0
    )
    count(_RIGHT)
    lookup(_NAME)
    emit(
        _instruction(0x7B, dst=0, src=8),  # *r0 = r8
        _instruction(0x85, value=_GET_CPU),
        _instruction(0xBF, dst=9, src=0),  # r9 = r0
    )
    lookup(_CPU)
    emit(
        _instruction(0x7B, dst=0, src=9),  # *r0 = r9
        _instruction(0xB7, dst=0),
        _instruction(0x95),
    )
    return Program("calibration", bytes(code), tuple(maps))


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One struct bpf_insn (include/uapi/linux/bpf.h); its registers are bit-fields."""
    registers = src << 4 | dst if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, offset, value)
