"""What every architecture adapter must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

__all__ = ["Arch", "SyscallNumbers"]


class SyscallNumbers(NamedTuple):
    """Numbers of the system calls that have no libc wrapper (arch/*/entry/syscalls tables)."""

    bpf: int
    membarrier: int
    perf_event_open: int


class Arch(ABC):
    """The description of an architecture, and the few decisions that are code."""

    __slots__ = ()

    name: ClassVar[str]
    # What uname(2) may call it.
    machines: ClassVar[frozenset[str]]
    syscalls: ClassVar[SyscallNumbers]
    # How the kernel names the function behind a system call, most likely first.
    syscall_prefixes: ClassVar[tuple[str, ...]]
    # Probe ABIs, most wanted first; what the kernel lacks is passed over.
    abi_order: ClassVar[tuple[str, ...]]
    # A kprobe at a function's entry goes through ftrace there, and each arm or disarm walks all
    # ftrace records: standing behind the patch site then pays.
    entry_is_ftrace: ClassVar[bool]

    @abstractmethod
    def after_patch_site(self, code: bytes) -> int | None:
        """Offset in bytes just behind the entry patch site of the function with this `code`.

        None where a probe there would not mean the same as one at the entry.
        """

    @abstractmethod
    def hit_ips(self, address: int, offset: int) -> tuple[int, ...]:
        """Values the instruction pointer may have in the handler of a probe at address + offset.

        `address` is the function's; no two probes share a value.
        """

    @abstractmethod
    def entry_ips(self, address: int) -> tuple[int, ...]:
        """Addresses the kernel may give the kprobe of a return probe on the function."""
