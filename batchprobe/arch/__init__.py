"""The architecture adapters; one more architecture is one more file and one more line here."""

from __future__ import annotations

import os
import struct
from functools import cache
from importlib import import_module

from batchprobe.arch.base import Arch, PerfRequests, Registers, SyscallNumbers, Unsupported
from batchprobe.errors import UnsupportedError

__all__ = [
    "ADAPTERS",
    "Arch",
    "PerfRequests",
    "Registers",
    "SyscallNumbers",
    "adapter",
    "current",
    "for_machine",
]

# The file of each adapter, and what uname(2) calls its machines. Only the one needed is imported.
ADAPTERS = {
    "x86_64": ("x86_64",),
    "i386": ("i386", "i486", "i586", "i686"),
    "arm64": ("aarch64",),
    "arm": ("armv6l", "armv7l", "armv8l"),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
    "riscv64": ("riscv64",),
    "ia64": ("ia64",),
}


def adapter(file: str) -> Arch:
    """The adapter in a file of this package. Raises UnsupportedError with its reason to refuse."""
    found = import_module(f"{__name__}.{file}").ARCH
    if isinstance(found, Unsupported):
        raise UnsupportedError(found.reason, remedy=found.remedy)
    if not isinstance(found, Arch):
        raise TypeError(f"{file}.ARCH is no adapter")
    return found


def for_machine(machine: str) -> Arch:
    """The adapter for a machine as uname(2) names it.

    Raises UnsupportedError for a machine that has none.
    """
    for file, machines in ADAPTERS.items():
        if machine in machines:
            return adapter(file)
    known = ", ".join(name for file in ADAPTERS for name in ADAPTERS[file] if file != "ia64")
    raise UnsupportedError(
        f"no probe adapter for the architecture {machine!r}", remedy=f"there are: {known}"
    )


@cache
def current() -> Arch:
    """The adapter for the machine that this runs on.

    Raises UnsupportedError if there is none, or if this Python was built for another one than the
    kernel says it is: numbers and sizes would be the wrong ones.
    """
    machine = os.uname().machine
    found = for_machine(machine)
    bits = struct.calcsize("P") * 8
    if bits != found.bits:
        raise UnsupportedError(
            f"a Python of {bits} bits, and a kernel that says it is {machine}",
            remedy="run it with a Python of the kernel's own kind, and not under setarch(8)",
        )
    return found
