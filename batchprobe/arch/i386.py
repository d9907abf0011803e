# SPDX-License-Identifier: Apache-2.0
"""i386: like x86_64, but 32 bits and without endbr."""

from __future__ import annotations

from batchprobe.arch.base import Arch, Registers, SyscallNumbers
from batchprobe.arch.x86 import BREAKPOINT_SIZE, end_of_patch_site, may_patch

__all__ = ["ARCH"]


class _I386(Arch):
    __slots__ = ()

    name = "i386"
    bits = 32
    syscalls = SyscallNumbers(bpf=357, membarrier=375, perf_event_open=336)
    # The kernel is built with -mregparm=3: ax, dx, cx.
    registers = Registers(
        instruction_pointer=48,
        stack_pointer=60,
        arguments=(24, 8, 4),
        result=24,
    )
    # It is built with -freg-struct-return too.
    largest_result = 8
    # The kernel is built with -mregparm=3, which variadic functions ignore (arch/x86/Makefile).
    variadic_in_registers = False
    syscall_prefixes = ("__ia32_sys_", "sys_")
    # No fprobes, hence no kprobe_multi.
    abi_order = ("event", "perf")
    prefers_after = True
    jump_optimizes = True
    entry_ips = (BREAKPOINT_SIZE,)
    ip_after_breakpoint = BREAKPOINT_SIZE

    def after_patch_site(self, code: bytes) -> int | None:
        return end_of_patch_site(code, 0)

    def may_patch(self, code: bytes, offset: int) -> bool:
        return may_patch(code, offset)


ARCH = _I386()
