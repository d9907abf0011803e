# SPDX-License-Identifier: Apache-2.0
"""s390x: ftrace-based probes at the entry, two-byte breakpoints after the patch site."""

from __future__ import annotations

import struct

from batchprobe.arch.base import Arch, Registers, SyscallNumbers
from batchprobe.arch.jumps import may_jump_to, signed

__all__ = ["ARCH"]

_PATCH_SITE_SIZE = 6
# "brcl 0,X", which never jumps; ftrace replaces it with "brasl r0,X" (arch/s390/kernel/ftrace.c).
_SITES = (b"\xc0\x04", b"\xc0\x05")
_HALFWORD = 2
# Instructions that neither branch nor set the condition code, identified by
# - the first byte: LR, STH, LA, STC, IC, LH, ST, L, STD, STM, MVI, LM, LxRL and STxRL, MVC
# - the first byte and the fourth nibble: LHI, LGHI, LARL, LGFI, LLIHF, LLILF
# - the first two bytes: LGR, LGFR, LLGFR, LLGTR, LLGCR, LLGHR, MVHHI, MVGHI, MVHI
# - the first and last of six bytes: LG to STMG
_FIRST = frozenset(b"\x18\x40\x41\x42\x43\x48\x50\x58\x60\x90\x92\x98\xc4\xd2")
_FIRST_AND_NIBBLE = frozenset({0xA78, 0xA79, 0xC00, 0xC01, 0xC0E, 0xC0F})
_FIRST_TWO = frozenset(
    {0xB904, 0xB914, 0xB916, 0xB917, 0xB984, 0xB985, 0xE544, 0xE548, 0xE54C},
)
_FIRST_AND_LAST = frozenset(
    {0xE304, 0xE314, 0xE315, 0xE316, 0xE317, 0xE324, 0xE350, 0xE358, 0xE370, 0xE371, 0xE372}
    | {0xE373, 0xE376, 0xE377, 0xE378, 0xE390, 0xE391, 0xE394, 0xE395, 0xEB04, 0xEB24},
)


class _S390x(Arch):
    __slots__ = ()

    name = "s390x"
    byteorder = "big"
    syscalls = SyscallNumbers(bpf=351, membarrier=356, perf_event_open=331)
    # Arguments are r2 to r6 in gprs[], which follows args[1] and the PSW.
    registers = Registers(
        instruction_pointer=16,
        stack_pointer=144,
        arguments=tuple(range(40, 80, 8)),
        result=40,
    )
    largest_result = 0
    syscall_prefixes = ("__s390x_sys_", "__s390_sys_", "sys_")
    prefers_after = True
    # ftrace-based probes report their own address, breakpoints the address after the breakpoint.
    entry_ips = (0, 2)
    ip_after_breakpoint = 2

    def after_patch_site(self, code: bytes) -> int | None:
        if not code.startswith(_SITES):
            return None
        # The kernel single-steps the instruction that a breakpoint replaced. QEMU 7.2 gets that
        # wrong for compare and branch (dput() starts with one), and loses the condition code that
        # LT sets for the next branch (on 6.12 this breaks sched_getscheduler(2)).
        head, tail = struct.unpack_from(">HI", code + bytes(6), _PATCH_SITE_SIZE)
        if not _safe_to_single_step(head, tail):
            return None
        jumps = may_jump_to(code, _PATCH_SITE_SIZE, _displacements, unit=_HALFWORD, byteorder="big")
        return None if jumps else _PATCH_SITE_SIZE


def _safe_to_single_step(head: int, tail: int) -> bool:
    """Report whether single-stepping this instruction changes only registers and memory."""
    first = head >> 8
    return (
        first in _FIRST
        or first << 4 | head & 0xF in _FIRST_AND_NIBBLE
        or head in _FIRST_TWO
        or first << 8 | tail & 0xFF in _FIRST_AND_LAST
        # BCR 0, which never branches
        or head & 0xFFF0 == 0x0700
        # Another tool's breakpoint: the kernel already single-steps what it replaced.
        or head == 0x0002
    )


def _displacements(head: int, tail: int) -> tuple[int, ...]:
    operation = head >> 8
    # The displacement is the 16 or 32 bits after the first halfword; it counts halfwords.
    near = signed(tail >> 16, 16) * _HALFWORD
    if operation == 0xA7 and head & 0xF in (0x4, 0x6, 0x7):  # brc, brct, brctg
        return (near,)
    if operation in (0x84, 0x85, 0xEC):  # brxh, brxle, compare and branch
        return (near,)
    if operation == 0xC0 and head & 0xF == 0x4:  # brcl
        return (signed(tail, 32) * _HALFWORD,)
    if operation == 0xCC and head & 0xF == 0x6:  # brcth
        return (signed(tail, 32) * _HALFWORD,)
    return ()


ARCH = _S390x()
