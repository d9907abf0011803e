"""s390x: ftrace-based entry probes, breakpoints of two bytes behind the patch site."""

from __future__ import annotations

import struct

from batchprobe.arch.base import Arch, Registers, SyscallNumbers
from batchprobe.arch.jumps import may_jump_to, signed

__all__ = ["ARCH"]

_PATCH_SITE_SIZE = 6
# brcl 0,X: jumps never; brasl r0,X: what ftrace makes of it (arch/s390/kernel/ftrace.c).
_SITES = (b"\xc0\x04", b"\xc0\x05")
_HALFWORD = 2


class _S390x(Arch):
    __slots__ = ()

    name = "s390x"
    syscalls = SyscallNumbers(bpf=351, membarrier=356, perf_event_open=331)
    # Arguments in r2 to r6 of gprs[], which follow args[1] and the PSW.
    registers = Registers(instruction_pointer=16, arguments=tuple(range(40, 80, 8)), result=40)
    syscall_prefixes = ("__s390x_sys_", "__s390_sys_", "sys_")
    prefers_after = True
    # An ftrace-based probe reads its own address; a breakpoint, the one behind it.
    entry_ips = (0, 2)
    inner_ip = 2

    def after_patch_site(self, code: bytes) -> int | None:
        if not code.startswith(_SITES):
            return None
        # The kernel steps over what a breakpoint replaced. Of a compare and branch (`dput` begins
        # so) QEMU 7.2 then loses the branch, and the kernel crashes.
        head, tail = struct.unpack_from(">HI", code + bytes(6), _PATCH_SITE_SIZE)
        if _displacements(head, tail):
            return None
        jumps = may_jump_to(code, _PATCH_SITE_SIZE, _displacements, unit=_HALFWORD, byteorder="big")
        return None if jumps else _PATCH_SITE_SIZE


def _displacements(head: int, tail: int) -> tuple[int, ...]:
    operation = head >> 8
    # The 16 bits behind the first halfword, or 32: in halfwords.
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
