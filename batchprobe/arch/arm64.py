# SPDX-License-Identifier: Apache-2.0
"""arm64: kprobes are breakpoints everywhere, so the entry is as good a site as any."""

from __future__ import annotations

from batchprobe.arch.base import Arch, Registers, SyscallNumbers
from batchprobe.arch.jumps import may_jump_to, signed

__all__ = ["ARCH"]

_WORD = 4
# Instructions a compiler may emit before the patch site: paciasp, pacibsp, bti c.
_LANDING_PADS = frozenset({0xD503233F, 0xD503237F, 0xD503245F})
_NOP = 0xD503201F
_MOV_X9_LR = 0xAA1E03E9


class _Arm64(Arch):
    __slots__ = ()

    name = "arm64"
    syscalls = SyscallNumbers(bpf=280, membarrier=283, perf_event_open=241)
    registers = Registers(
        instruction_pointer=256,
        stack_pointer=248,
        arguments=tuple(range(0, 64, 8)),
        result=0,
    )
    # The address of a larger one is passed in x8, which carries no argument.
    largest_result = 1 << 31
    syscall_arguments = tuple(range(0, 48, 8))
    syscall_prefixes = ("__arm64_sys_",)
    # Only with net.core.bpf_jit_enable=0, which is not the default.
    cpu_id_unreliable = True

    def after_patch_site(self, code: bytes) -> int | None:
        words = [int.from_bytes(code[at : at + _WORD], "little") for at in range(0, 12, _WORD)]
        start = 1 if words[0] in _LANDING_PADS else 0
        # Two nops, or what ftrace replaces them with (arch/arm64/kernel/ftrace.c).
        first, second = words[start : start + 2]
        is_call = second >> 26 == 0b100101
        if first not in (_NOP, _MOV_X9_LR) or not (second == _NOP or is_call):
            return None
        after = (start + 2) * _WORD
        jumps = may_jump_to(code, after, _displacements, unit=_WORD, byteorder="little")
        return None if jumps else after


def _displacements(word: int, _next: int) -> tuple[int, ...]:
    if word >> 26 == 0b000101:  # b
        return (signed(word, 26) * _WORD,)
    if word >> 24 == 0x54 or word >> 25 & 0x3F == 0b011010:  # b.cond; cbz, cbnz
        return (signed(word >> 5, 19) * _WORD,)
    if word >> 25 & 0x3F == 0b011011:  # tbz, tbnz
        return (signed(word >> 5, 14) * _WORD,)
    return ()


ARCH = _Arm64()
