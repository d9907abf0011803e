# SPDX-License-Identifier: Apache-2.0
"""The programs of a calibration, in raw instructions: they need no compiler.

They count in the `hits` of one probe's maps, in the cells of CPU 0 that no slot uses.
"""

from __future__ import annotations

import struct
import sys

from batchprobe.arch import Arch
from batchprobe.programs.program import Program

__all__ = ["CPU", "HITS", "IP", "RIGHT", "UNKNOWN_IP", "programs"]

HITS, RIGHT, IP, CPU = 1, 2, 3, 4
"""Slots: hits, hits with the right argument, the key of the last of these, the CPU it ran on."""
UNKNOWN_IP = 1
"""Recorded when the program has no IP or function address to report."""

_LOAD = {32: 0x61, 64: 0x79}  # r = *(u32 *)(r + offset), *(u64 *)
_GET_CPU, _GET_FUNC_IP = 8, 173  # enum bpf_func_id


def programs(arch: Arch, *, is_return: bool, argument: int) -> dict[str, Program]:
    """For each counting program, a twin that loads on the same kernels and records the key that the
    real one would look up.

    A call is RIGHT if its first argument is `argument`, or for a return probe if its result is 0.
    """
    registers = arch.registers
    ip = _instruction(_LOAD[arch.bits], dst=8, src=6, offset=registers.instruction_pointer)
    nothing = _instruction(0xB7, dst=8, value=UNKNOWN_IP)
    ways = {
        "by_ip": ip,
        "by_link": _result_of(_GET_FUNC_IP),
        "by_func_ip": _result_of(_GET_FUNC_IP),
        "by_running_kprobe": nothing,
    }
    at, value = (registers.result, 0) if is_return else (registers.arguments[0], argument)
    return {name: _program(arch, way, at, value) for name, way in ways.items()}


def _result_of(helper: int) -> bytes:
    return (
        _instruction(0xBF, dst=1, src=6)  # r1 = r6
        + _instruction(0x85, value=helper)
        + _instruction(0xBF, dst=8, src=0)  # r8 = r0
    )


def _program(arch: Arch, way: bytes, at: int, value: int) -> Program:
    operands: list[tuple[int, str]] = []
    code = bytearray()

    def emit(*instructions: bytes) -> None:
        for instruction in instructions:
            code.extend(instruction)

    def lookup(slot: int) -> None:
        """r0 = &hits[slot]; returns if there is none."""
        emit(
            _instruction(0x62, dst=10, offset=-4, value=slot),  # *(u32 *)(fp - 4) = slot
            _instruction(0xBF, dst=2, src=10),  # r2 = fp
            _instruction(0x07, dst=2, value=-4),  # r2 -= 4
        )
        operands.append((len(code) // 8, "hits"))
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
    count(HITS)
    emit(
        _instruction(0xB7, dst=0),  # r0 = 0
        _instruction(0x15, dst=7, offset=1, value=value),  # if r7 == value: skip one
        _instruction(0x95),  # return r0
    )
    count(RIGHT)
    lookup(IP)
    emit(
        _instruction(0x7B, dst=0, src=8),  # *r0 = r8
        _instruction(0x85, value=_GET_CPU),
        _instruction(0xBF, dst=9, src=0),  # r9 = r0
    )
    lookup(CPU)
    emit(
        _instruction(0x7B, dst=0, src=9),  # *r0 = r9
        _instruction(0xB7, dst=0),
        _instruction(0x95),
    )
    return Program("calibration", bytes(code), tuple(operands))


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One struct bpf_insn (include/uapi/linux/bpf.h), whose registers are bit-fields."""
    registers = src << 4 | dst if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, offset, value)
