# SPDX-License-Identifier: Apache-2.0
"""arm (32 bits): breakpoints only; the kernel jump-optimizes those at a function's entry."""

from __future__ import annotations

from batchprobe.arch.base import Arch, Registers, SyscallNumbers

__all__ = ["ARCH"]


class _Arm(Arch):
    __slots__ = ()

    name = "arm"
    bits = 32
    syscalls = SyscallNumbers(bpf=386, membarrier=389, perf_event_open=364)
    registers = Registers(
        instruction_pointer=60,
        stack_pointer=52,
        arguments=(0, 4, 8, 12),
        result=0,
    )
    largest_result = 4
    syscall_prefixes = ("sys_",)
    # No fprobes, hence no kprobe_multi.
    abi_order = ("event", "perf")


ARCH = _Arm()
