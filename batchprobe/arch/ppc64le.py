"""ppc64le: functions with two entries, of which callers in the kernel take the second.

A function that needs the table of contents begins with two instructions that set it up, for
callers from elsewhere (the global entry); the local entry is behind them (ELF ABI v2). kallsyms
tells the global one, and a probe there sees hardly any call. Asked by name, the kernel moves a
probe; asked by address or `_text+N` it does not.
"""

from __future__ import annotations

from batchprobe.arch.base import Arch, PerfRequests, Registers, SyscallNumbers
from batchprobe.arch.jumps import may_jump_to, signed

__all__ = ["ARCH"]

_WORD = 4
_LOCAL_ENTRY = 8
# addis r2,r12,X or lis r2,X; addi r2,r2,X: in the high half of the word.
_SET_UP = (frozenset({0x3C4C, 0x3C40}), 0x3842)
_MFLR_R0 = 0x7C0802A6
_NOP = 0x60000000
# bl: what ftrace makes of the nop.
_OPCODE_B, _OPCODE_BC = 18, 16


class _Ppc64le(Arch):
    __slots__ = ()

    name = "ppc64le"
    syscalls = SyscallNumbers(bpf=361, membarrier=365, perf_event_open=319)
    # Here the direction bits of _IO and _IOW are others (arch/powerpc/include/uapi/asm/ioctl.h).
    perf_requests = PerfRequests(enable=0x20002400, set_bpf=0x80042408)
    registers = Registers(instruction_pointer=256, arguments=tuple(range(24, 88, 8)), result=24)
    syscall_prefixes = ("sys_", "__se_sys_")
    prefers_after = True
    optimizes = True
    entry_varies = True
    # By name: the patch site, or the local entry, of a function with or without a global one.
    entry_ips = (12, 8, 4, 0)
    return_ips = entry_ips

    def entry(self, code: bytes | None) -> int:
        if code is None:
            # The local entry, or behind the patch site where there is one entry only.
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
    first, second = _SET_UP
    sets_up = _word(code, 0) >> 16 in first and _word(code, _WORD) >> 16 == second
    return _LOCAL_ENTRY if sets_up else 0


def _patch_site(code: bytes, local: int) -> int | None:
    """Where ftrace patches: behind `mflr r0` (-mprofile-kernel), or at the local entry."""
    site = local + _WORD if _word(code, local) == _MFLR_R0 else local
    word = _word(code, site)
    is_call = word >> 26 == _OPCODE_B and word & 3 == 1
    return site if word == _NOP or (is_call and site != local) else None


def _displacements(word: int, _next: int) -> tuple[int, ...]:
    # Neither absolute jumps nor calls: the two lowest bits.
    if word & 3:
        return ()
    if word >> 26 == _OPCODE_B:
        return (signed(word, 26),)
    if word >> 26 == _OPCODE_BC:
        return (signed(word, 16),)
    return ()


ARCH = _Ppc64le()
