# SPDX-License-Identifier: Apache-2.0
"""The interface of an architecture adapter."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Literal


__all__ = ["Arch", "PerfRequests", "Registers", "SyscallNumbers", "Unsupported"]


class SyscallNumbers:
    """Numbers of system calls without a libc wrapper (the syscall tables in arch/)."""

    __slots__ = ("bpf", "membarrier", "perf_event_open")

    def __init__(self, *, bpf: int, membarrier: int, perf_event_open: int) -> None:
        self.bpf = bpf
        self.membarrier = membarrier
        self.perf_event_open = perf_event_open


class PerfRequests:
    """ioctl(2) requests of include/uapi/linux/perf_event.h: _IO('$', 0), _IOW('$', 8, __u32)."""

    __slots__ = ("enable", "set_bpf")

    def __init__(self, *, enable: int = 0x2400, set_bpf: int = 0x40042408) -> None:
        self.enable = enable
        self.set_bpf = set_bpf


class Registers:
    """Byte offsets into struct pt_regs, as seen by a probe handler.

    `arguments` are all registers that carry arguments of C functions, in order.
    """

    __slots__ = ("arguments", "instruction_pointer", "result", "stack_pointer")

    def __init__(
        self,
        *,
        instruction_pointer: int,
        stack_pointer: int,
        arguments: tuple[int, ...],
        result: int,
    ) -> None:
        self.instruction_pointer = instruction_pointer
        self.stack_pointer = stack_pointer
        self.arguments = arguments
        self.result = result


class Unsupported:
    """An architecture that cannot be supported, with the reason shown to the user."""

    __slots__ = ("reason", "remedy")

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy


class Arch:
    """Constants of an architecture, and the decisions about probe sites that depend on it."""

    __slots__ = ()

    name: ClassVar[str]
    # Size of a pointer and of a register in pt_regs.
    bits: ClassVar[int] = 64
    byteorder: ClassVar[Literal["little", "big"]] = "little"
    syscalls: ClassVar[SyscallNumbers]
    perf_requests: ClassVar[PerfRequests] = PerfRequests()
    # The ioctl(2) request NS_GET_NSTYPE of include/uapi/linux/nsfs.h: _IO(0xb7, 3).
    get_namespace_type: ClassVar[int] = 0xB703
    registers: ClassVar[Registers]
    # Bytes of the largest struct that a function returns in registers. The address of a larger one
    # is passed in the register of the first argument, and the others move on by one.
    largest_result: ClassVar[int] = 16
    # Whether a function with "..." has its arguments in registers as others have.
    variadic_in_registers: ClassVar[bool] = True
    # Offsets into struct pt_regs of user space, where the function of a system call finds its
    # arguments; empty if they are passed as to any function.
    syscall_arguments: ClassVar[tuple[int, ...]] = ()
    # Prefixes the kernel puts before a system call's name, most likely first.
    syscall_prefixes: ClassVar[tuple[str, ...]]
    # Whether bpf_get_smp_processor_id() may return the wrong CPU, so that counters need atomic
    # additions. Where the JIT inlines this helper, the verifier does not patch the call; run by the
    # interpreter, it then calls another function, which returns 0 (do_misc_fixups(),
    # kernel/bpf/verifier.c, seen on Linux 6.12).
    cpu_id_unreliable: ClassVar[bool] = False
    # Probe ABIs in order of preference; those the kernel lacks are skipped.
    abi_order: ClassVar[tuple[str, ...]] = ("multi", "event", "perf")
    # Whether to probe just after the entry patch site instead of at the entry. Arming or disarming
    # an ftrace-based probe at the entry walks all ftrace records; without KPROBES_ON_FTRACE the
    # kernel may refuse a probe there.
    prefers_after: ClassVar[bool] = False
    # Whether kprobes are jump-optimized (CONFIG_OPTPROBES). Those that cannot be trap on every hit.
    jump_optimizes: ClassVar[bool] = False
    # Whether `entry` inspects the function's code.
    entry_depends_on_code: ClassVar[bool] = False
    # Offset used in functions of modules not loaded yet, whose code cannot be inspected.
    offset_in_unloaded_module: ClassVar[int] = 0
    # Possible values of the instruction pointer, relative to the function's address, in the handler
    # of a probe requested at offset 0.
    entry_ips: ClassVar[tuple[int, ...]] = (0,)
    # How far past its instruction the instruction pointer reads for a probe at any other offset.
    ip_after_breakpoint: ClassVar[int] = 0
    # Where the kernel may place the kprobe of a return probe requested at offset 0, relative to the
    # function's address. bpf_get_func_ip() and current_kprobe report this address.
    return_ips: ClassVar[tuple[int, ...]] = (0,)

    def entry(self, code: bytes | None) -> int:
        """Return the offset, in bytes, at which to request an entry or return probe.

        Every call of the function passes this offset exactly once. `code` is the function's code,
        None if it cannot be read.
        """
        return 0

    def after_patch_site(self, code: bytes) -> int | None:
        """Return the offset, in bytes, just after the entry patch site of a function's `code`.

        None if there is no patch site, or if a probe after it would be refused, unsafe, or hit more
        than once per call.
        """
        return None

    def may_patch(self, code: bytes, offset: int) -> bool:
        """Guess whether the kernel patches the instruction at `offset`, and refuses probes on it.

        Such an instruction may belong to a jump label or a static call.
        """
        return False

    def hit_ips(self, address: int, offset: int) -> tuple[int, ...]:
        """Possible instruction pointers in the handler of a probe at `address + offset`.

        `address` is the function's. No two probe sites share a value.
        """
        if offset:
            return (address + offset + self.ip_after_breakpoint,)
        return tuple(address + distance for distance in self.entry_ips)

    def return_probe_ips(self, address: int, offset: int) -> tuple[int, ...]:
        """Possible addresses of the kprobe of a return probe requested at `address + offset`."""
        if offset:
            return (address + offset,)
        return tuple(address + distance for distance in self.return_ips)

    @property
    def max_ips(self) -> int:
        """The largest number of instruction pointers one probe may report."""
        return max(len(self.entry_ips), len(self.return_ips))

    @property
    def bytecode(self) -> str:
        """Name of the shipped bytecode variant: byte order, word size, atomic or plain counters."""
        order = "le" if self.byteorder == "little" else "be"
        return f"{order}{self.bits}{'-atomic' if self.cpu_id_unreliable else ''}"
