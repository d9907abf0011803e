# SPDX-License-Identifier: Apache-2.0
"""System calls that the standard library does not offer, made through libc."""

from __future__ import annotations

import fcntl

# ctypes itself would add 3 % to a start: it makes a class for each type of C (docs/performance.md).
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
)
from contextlib import suppress

from batchprobe import arch
from batchprobe.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["address_of", "ioctl", "mapped", "membarrier_global", "share_memory", "syscall"]

# include/uapi/linux/membarrier.h
_MEMBARRIER_CMD_GLOBAL = 1

# include/uapi/asm-generic/mman-common.h, include/uapi/linux/mman.h
_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED = 1
_MAP_FAILED = -1

# include/uapi/linux/sched.h
_CLONE_VM, _CLONE_FILES = 0x100, 0x400
# Above the stack pointer some ABIs keep a frame; all want it aligned.
_STACK_HEADROOM, _STACK_ALIGNMENT = 1024, 16
_STACK_SIZE = 1 << 16
_stacks: list[bytearray] = []
"""Of the processes that share our memory."""


class _Byte(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Process:
    """Where functions are looked up: among the symbols of this process, libc's included."""

    _handle = dlopen(None, 0)  # type: ignore[arg-type]


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long

    def __new__(cls, name: str) -> Self:
        return super().__new__(cls, (name, _Process))  # type: ignore[arg-type]


_syscall, _mmap, _munmap = map(_Function, ("syscall", "mmap", "munmap"))


def address_of(memory: bytearray) -> int:
    """Where the bytes are, for the kernel to read and write. Not for an empty one."""
    return addressof(_Byte.from_buffer(memory))


def syscall(call: str, number: int, *arguments: int) -> int:
    """Make a system call by number and return its result.

    Raises KernelError, which names `call`, if the result is negative.
    """
    result: int = _syscall(*map(_Long, (number, *arguments)))
    if result < 0:
        raise KernelError(call, get_errno())
    return result


def ioctl(call: str, fd: int, request: int, argument: int) -> int:
    """Make an ioctl(2) with an integer argument, and return its result.

    Raises KernelError, which names `call`.
    """
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise KernelError(call, error.errno or 0) from error


def mapped(name: str, fd: int, size: int, *, writable: bool = False) -> memoryview:
    """Map the first `size` bytes of a file, shared, and return a view of them.

    The mapping lives until the last view of it is released. Raises KernelError, which names `name`.
    """
    # Not mmap.mmap, which in Python 3.11 keeps a duplicate of the descriptor for each mapping.
    protection = _PROT_READ | _PROT_WRITE if writable else _PROT_READ
    address = _mmap(*map(_Long, (0, size, protection, _MAP_SHARED, fd, 0)))
    if address == _MAP_FAILED:
        raise KernelError(f"mmap({name})", get_errno())

    class Mapping(_Byte * size):  # type: ignore[misc]
        """The mapped bytes. Every view holds a reference, so this unmaps after the last one."""

        def __del__(self) -> None:
            _munmap(_Long(addressof(self)), _Long(size))

    view = memoryview(Mapping.from_address(address)).cast("B")
    return view if writable else view.toreadonly()


def membarrier_global() -> None:
    """Wait for an RCU grace period: synchronize_rcu() for user space (Linux 4.3).

    MEMBARRIER_CMD_GLOBAL (kernel/sched/membarrier.c) returns at once while only one CPU is online:
    the caller runs on it, so no handler, which runs with preemption off, can be in progress.
    Raises KernelError: EINVAL on a kernel booted with nohz_full, ENOSYS without CONFIG_MEMBARRIER.
    """
    number = arch.current().syscalls.membarrier
    syscall("membarrier(MEMBARRIER_CMD_GLOBAL)", number, _MEMBARRIER_CMD_GLOBAL, 0, 0)


def share_memory(seconds: float) -> None:
    """Start a process that shares our memory and descriptors, sleeps this long, and ends.

    If we end meanwhile, that process frees them, and whoever waits for our end does not wait for
    that. Without clone(2) nothing happens.
    """
    _stacks.append(bytearray(_STACK_SIZE))
    top = address_of(_stacks[-1]) + _STACK_SIZE - _STACK_HEADROOM
    with suppress(AttributeError, OSError):  # ia64 has __clone2 instead
        # The process runs usleep(3) on a stack of its own, and then _exit(2).
        sleep, clone = dlsym(_Process._handle, "usleep"), _Function("clone")
        flags, stack = _CLONE_VM | _CLONE_FILES, top & -_STACK_ALIGNMENT
        clone(*map(_Long, (sleep, stack, flags, int(seconds * 1e6))))
