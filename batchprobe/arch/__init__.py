"""The architecture adapters; one more architecture is one more file and one more line here."""

from __future__ import annotations

import os
from functools import cache

from batchprobe.arch.base import Arch, SyscallNumbers
from batchprobe.arch.x86_64 import X86_64
from batchprobe.errors import UnsupportedError

__all__ = ["Arch", "SyscallNumbers", "current", "for_machine"]

_ARCHITECTURES: tuple[Arch, ...] = (X86_64,)


def for_machine(machine: str) -> Arch:
    """The adapter for a machine as uname(2) names it.

    Raises UnsupportedError for a machine that has none.
    """
    for arch in _ARCHITECTURES:
        if machine in arch.machines:
            return arch
    known = ", ".join(sorted(name for arch in _ARCHITECTURES for name in arch.machines))
    raise UnsupportedError(
        f"no probe adapter for the architecture {machine!r}", remedy=f"there are: {known}"
    )


@cache
def current() -> Arch:
    """The adapter for the machine that this runs on."""
    return for_machine(os.uname().machine)
