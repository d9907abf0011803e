# SPDX-License-Identifier: Apache-2.0
"""ppc64le: functions have two entry points, and callers inside the kernel use the second.

A function that needs the table of contents starts with two instructions that set it up for callers
from other modules (the global entry); the local entry follows them (ELF ABI v2). kallsyms reports
the global entry, where a probe misses nearly all calls. The kernel moves a probe requested by
symbol name to the right place, but not one requested by address or as `_text+N`.
"""

from __future__ import annotations

from batchprobe.arch.base import Arch, PerfRequests, Registers, SyscallNumbers
from batchprobe.arch.jumps import may_jump_to, signed

__all__ = ["ARCH"]

_WORD = 4
_LOCAL_ENTRY = 8
# The high halves of "addis r2,r12,X" or "lis r2,X", and of "addi r2,r2,X".
_TOC_SETUP = (frozenset({0x3C4C, 0x3C40}), 0x3842)
_MFLR_R0 = 0x7C0802A6
_NOP = 0x60000000
_OPCODE_B, _OPCODE_BC = 18, 16


class _Ppc64le(Arch):
    __slots__ = ()

    name = "ppc64le"
    syscalls = SyscallNumbers(bpf=361, membarrier=365, perf_event_open=319)
    # powerpc encodes the direction bits of _IO and _IOW differently
    # (arch/powerpc/include/uapi/asm/ioctl.h).
    perf_requests = PerfRequests(enable=0x20002400, set_bpf=0x80042408)
    get_namespace_type = 0x2000B703
    registers = Registers(
        instruction_pointer=256,
        stack_pointer=8,
        arguments=tuple(range(24, 88, 8)),
        result=24,
    )
    syscall_prefixes = ("sys_", "__se_sys_")
    prefers_after = True
    jump_optimizes = True
    entry_depends_on_code = True
    # The patch site or the local entry, in functions with and without a global entry.
    entry_ips = (12, 8, 4, 0)
    return_ips = entry_ips

    def entry(self, code: bytes | None) -> int:
        if code is None:
            # The local entry; without a global entry, just after the patch site.
            return _LOCAL_ENTRY
        local = _local_entry(code)
        site = _patch_site(code, local)
        return local if site is None else site

    def after_patch_site(self, code: bytes) -> int | None:
        site = _patch_site(code, _local_entry(code))
        if site is None:
            return None
        after = site + _WORD
        jumps = may_jump_to(code, after, _displacements, unit=_WORD, byteorder="little")
        return None if jumps else after


def _word(code: bytes, at: int) -> int:
    return int.from_bytes(code[at : at + _WORD], "little")


def _local_entry(code: bytes) -> int:
    first, second = _TOC_SETUP
    has_setup = _word(code, 0) >> 16 in first and _word(code, _WORD) >> 16 == second
    return _LOCAL_ENTRY if has_setup else 0


def _patch_site(code: bytes, local: int) -> int | None:
    """Return the offset ftrace patches: after `mflr r0` (-mprofile-kernel) or the local entry."""
    site = local + _WORD if _word(code, local) == _MFLR_R0 else local
    word = _word(code, site)
    # ftrace replaces the nop with bl.
    is_call = word >> 26 == _OPCODE_B and word & 3 == 1
    return site if word == _NOP or (is_call and site != local) else None


def _displacements(word: int, _next: int) -> tuple[int, ...]:
    # Bits 1 and 0 (AA, LK) mark absolute jumps and calls.
    if word & 3:
        return ()
    if word >> 26 == _OPCODE_B:
        return (signed(word, 26),)
    if word >> 26 == _OPCODE_BC:
        return (signed(word, 16),)
    return ()


ARCH = _Ppc64le()
