# SPDX-License-Identifier: Apache-2.0
"""One adapter per CPU architecture: register offsets, syscall numbers, where probes may go.

To add an architecture, write one file here and add one line to ADAPTERS. Adapters rely only on
constants and on the code bytes they are given, so all of them can be tested on any machine. This
package may import `batchprobe.errors` only.
"""

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

# Adapter file -> the machine names uname(2) reports for it. Only the file in use is imported.
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
    """Return the adapter defined in the module `file` of this package.

    Raises UnsupportedError if the module declares its architecture unsupported.
    """
    found = import_module(f"{__name__}.{file}").ARCH
    if isinstance(found, Unsupported):
        raise UnsupportedError(found.reason, remedy=found.remedy)
    if not isinstance(found, Arch):
        raise TypeError(f"{file}.ARCH is not an Arch")
    return found


def for_machine(machine: str) -> Arch:
    """Return the adapter for `machine`, a machine name as reported by uname(2).

    Raises UnsupportedError if no adapter exists or the architecture is unsupported.
    """
    for file, machines in ADAPTERS.items():
        if machine in machines:
            return adapter(file)
    known = ", ".join(name for file in ADAPTERS for name in ADAPTERS[file] if file != "ia64")
    raise UnsupportedError(
        f"the architecture {machine!r} is not supported", remedy=f"supported machines: {known}"
    )


@cache
def current() -> Arch:
    """Return the adapter for the running machine.

    Raises UnsupportedError if none exists, or if this Python's word size differs from the
    kernel's: syscall numbers and structure layouts would not match.
    """
    machine = os.uname().machine
    found = for_machine(machine)
    bits = struct.calcsize("P") * 8
    if bits != found.bits:
        raise UnsupportedError(
            f"this is a {bits}-bit Python, but the kernel reports the machine {machine}",
            remedy="use a Python of the kernel's own word size, and do not run it under setarch(8)",
        )
    return found
