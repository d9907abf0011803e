# SPDX-License-Identifier: Apache-2.0
"""riscv64: breakpoints only, and on older kernels none at a function's entry.

With ftrace, functions start with the patch site. Debian 13's kernel (6.12) refuses probes in it;
later kernels accept them.
"""

from __future__ import annotations

from batchprobe.arch.base import Arch, Registers, SyscallNumbers
from batchprobe.arch.jumps import may_jump_to, signed

__all__ = ["ARCH"]

_PATCH_SITE_SIZE = 8
_NOP, _SHORT_NOP = b"\x13\0\0\0", b"\x01\0"
_NOPS = (2 * _NOP, 4 * _SHORT_NOP, _NOP + 2 * _SHORT_NOP, 2 * _SHORT_NOP + _NOP)
# ftrace replaces the first nop with "auipc t0,X" (arch/riscv/include/asm/ftrace.h).
_AUIPC_T0 = 0x297
_HALFWORD = 2


class _Riscv64(Arch):
    __slots__ = ()

    name = "riscv64"
    syscalls = SyscallNumbers(bpf=280, membarrier=283, perf_event_open=241)
    registers = Registers(
        instruction_pointer=0,
        stack_pointer=16,
        arguments=tuple(range(80, 144, 8)),
        result=80,
    )
    # orig_a0, then a1 to a5 (Linux 6.6).
    syscall_arguments = (280, *range(88, 128, 8))
    syscall_prefixes = ("__riscv_sys_", "sys_")
    # Debian's default is net.core.bpf_jit_enable=0.
    cpu_id_unreliable = True
    prefers_after = True
    # Every function known to ftrace starts with the patch site.
    offset_in_unloaded_module = _PATCH_SITE_SIZE

    def after_patch_site(self, code: bytes) -> int | None:
        first = int.from_bytes(code[:4], "little")
        if not (code.startswith(_NOPS) or first & 0xFFF == _AUIPC_T0):
            return None
        jumps = may_jump_to(
            code, _PATCH_SITE_SIZE, _displacements, unit=_HALFWORD, byteorder="little"
        )
        return None if jumps else _PATCH_SITE_SIZE


def _displacements(head: int, tail: int) -> tuple[int, ...]:
    parts: tuple[tuple[int, int, int], ...]
    word = head | (tail & 0xFFFF) << 16
    if word & 0x7F == 0x6F:  # jal: 20 | 10:1 | 11 | 19:12
        parts = ((31, 1, 20), (21, 10, 1), (20, 1, 11), (12, 8, 12))
        return (_immediate(word, parts, 21),)
    if word & 0x7F == 0x63:  # beq, bne, blt, ...: 12 | 10:5 ... 4:1 | 11
        return (_immediate(word, ((31, 1, 12), (25, 6, 5), (8, 4, 1), (7, 1, 11)), 13),)
    if head & 0xE003 == 0xA001:  # c.j: 11 | 4 | 9:8 | 10 | 6 | 7 | 3:1 | 5
        parts = ((12, 1, 11), (11, 1, 4), (9, 2, 8), (8, 1, 10), (7, 1, 6), (6, 1, 7), (3, 3, 1))
        return (_immediate(head, (*parts, (2, 1, 5)), 12),)
    if head & 0xC003 == 0xC001:  # c.beqz, c.bnez: 8 | 4:3 ... 7:6 | 2:1 | 5
        parts = ((12, 1, 8), (10, 2, 3), (5, 2, 6), (3, 2, 1), (2, 1, 5))
        return (_immediate(head, parts, 9),)
    return ()


def _immediate(word: int, parts: tuple[tuple[int, int, int], ...], bits: int) -> int:
    """Assemble a `bits`-wide signed number from its fields in `word`.

    Each part is (lowest bit in the word, width, lowest bit in the number).
    """
    value = 0
    for at, count, to in parts:
        value |= (word >> at & ((1 << count) - 1)) << to
    return signed(value, bits)


ARCH = _Riscv64()
