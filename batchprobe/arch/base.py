"""What every architecture adapter must answer."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

__all__ = ["Arch", "PerfRequests", "Registers", "SyscallNumbers", "Unsupported"]


class SyscallNumbers(NamedTuple):
    """Numbers of the system calls that have no libc wrapper (arch/*/entry/syscalls tables)."""

    bpf: int
    membarrier: int
    perf_event_open: int


class PerfRequests(NamedTuple):
    """ioctl(2) requests of include/uapi/linux/perf_event.h: _IO('$', 0), _IOW('$', 8, __u32)."""

    enable: int = 0x2400
    set_bpf: int = 0x40042408


class Registers(NamedTuple):
    """Where they are in the pt_regs that a handler gets, in bytes from its start."""

    instruction_pointer: int
    # Those that a C function gets its arguments in, as many as there are.
    arguments: tuple[int, ...]
    result: int


class Unsupported(NamedTuple):
    """An architecture that cannot be served, and why."""

    reason: str
    remedy: str


class Arch:
    """The description of an architecture, and the few decisions that are code."""

    __slots__ = ()

    name: ClassVar[str]
    # Of an address, and of a register in pt_regs.
    bits: ClassVar[int] = 64
    syscalls: ClassVar[SyscallNumbers]
    perf_requests: ClassVar[PerfRequests] = PerfRequests()
    registers: ClassVar[Registers]
    # How the kernel names the function behind a system call, most likely first.
    syscall_prefixes: ClassVar[tuple[str, ...]]
    # Whether a kernel may tell a program another CPU than the one it runs on; then counting takes
    # atomic additions. Where the JIT replaces the call of bpf_get_smp_processor_id() by
    # instructions, the verifier leaves it unfinished, and the interpreter calls something else,
    # which returns 0 (do_misc_fixups(), kernel/bpf/verifier.c, seen on Linux 6.12).
    may_tell_wrong_cpu: ClassVar[bool] = False
    # Probe ABIs, most wanted first; what the kernel lacks is passed over.
    abi_order: ClassVar[tuple[str, ...]] = ("multi", "event", "perf")
    # Whether a probe is better behind the entry patch site than at the entry: where that goes
    # through ftrace, each arm or disarm walks all ftrace records; elsewhere it may be refused.
    prefers_after: ClassVar[bool] = False
    # Whether the kernel makes jumps of breakpoints where it can (CONFIG_OPTPROBES), so that those
    # where it cannot are the dear ones.
    optimizes: ClassVar[bool] = False
    # Whether `entry` looks at the function's code.
    entry_varies: ClassVar[bool] = False
    # Where a probe is asked for in a function of a module that is not loaded: nobody can look.
    unseen_entry: ClassVar[int] = 0
    # How far behind a function's symbol the instruction pointer may read in the handler of a probe
    # that was asked for at offset 0.
    entry_ips: ClassVar[tuple[int, ...]] = (0,)
    # How far behind its instruction it reads for a probe at another offset.
    inner_ip: ClassVar[int] = 0
    # How far behind the symbol the kernel may put the kprobe of a return probe at offset 0, which
    # is what bpf_get_func_ip() and current_kprobe tell.
    return_ips: ClassVar[tuple[int, ...]] = (0,)

    def entry(self, code: bytes | None) -> int:
        """Offset in bytes at which a probe of the function's entry, or return, is asked for.

        Every call comes by there once. `code` is the function's, None if it cannot be read.
        """
        return 0

    def after_patch_site(self, code: bytes) -> int | None:
        """Offset in bytes just behind the entry patch site of the function with this `code`.

        None where a probe there would not mean the same as one at the entry.
        """
        return None

    def may_patch(self, code: bytes, offset: int) -> bool:
        """Whether the kernel may patch the instruction there, and so take no probe on it: a guess.

        Say, the function begins with a jump label, or calls through a static call.
        """
        return False

    def hit_ips(self, address: int, offset: int) -> tuple[int, ...]:
        """Values the instruction pointer may have in the handler of a probe at address + offset.

        `address` is the function's; no two probes share a value.
        """
        if offset:
            return (address + offset + self.inner_ip,)
        return tuple(address + distance for distance in self.entry_ips)

    def return_probe_ips(self, address: int, offset: int) -> tuple[int, ...]:
        """Addresses the kernel may give the kprobe of a return probe asked for at this offset."""
        if offset:
            return (address + offset,)
        return tuple(address + distance for distance in self.return_ips)

    @property
    def most_ips(self) -> int:
        """How many values one probe may have at most."""
        return max(len(self.entry_ips), len(self.return_ips))
