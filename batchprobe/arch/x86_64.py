# SPDX-License-Identifier: Apache-2.0
"""x86_64: ftrace-based probes at the entry, jump-optimized breakpoints after the patch site."""

from __future__ import annotations

from batchprobe.arch.base import Arch, Registers, SyscallNumbers
from batchprobe.arch.x86 import BREAKPOINT_SIZE, end_of_patch_site, may_patch

__all__ = ["ARCH", "ENDBRS"]

# endbr64, and the instructions that replace it in functions whose address is never taken
# (gen_endbr_poison(), arch/x86/include/asm/ibt.h: since 5.18, and another one since 6.15).
ENDBRS = (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6")
_ENDBR_SIZE = 4


class _X8664(Arch):
    __slots__ = ()

    name = "x86_64"
    syscalls = SyscallNumbers(bpf=321, membarrier=324, perf_event_open=298)
    # di, si, dx, cx, r8, r9; ax.
    registers = Registers(
        instruction_pointer=128,
        stack_pointer=152,
        arguments=(112, 104, 96, 88, 72, 64),
        result=80,
    )
    # di, si, dx, r10, r8, r9.
    syscall_arguments = (112, 104, 96, 56, 72, 64)
    syscall_prefixes = ("__x64_sys_", "sys_")
    prefers_after = True
    jump_optimizes = True
    # Since 5.18 the kernel moves a probe at the entry past endbr64.
    entry_ips = (BREAKPOINT_SIZE, _ENDBR_SIZE + BREAKPOINT_SIZE)
    ip_after_breakpoint = BREAKPOINT_SIZE
    return_ips = (0, _ENDBR_SIZE)

    def after_patch_site(self, code: bytes) -> int | None:
        return end_of_patch_site(code, _ENDBR_SIZE if code.startswith(ENDBRS) else 0)

    def may_patch(self, code: bytes, offset: int) -> bool:
        return may_patch(code, offset)


ARCH = _X8664()
