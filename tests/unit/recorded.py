# SPDX-License-Identifier: Apache-2.0
"""Files recorded from real kernels, for the tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from batchprobe.functions.table import FunctionTable
from batchprobe.kernel.module_files import InstalledModules

KERNELS = ("debian-11", "debian-12", "debian-13", "debian-sid")
"""Linux 5.10, 6.1, 6.12, 7.2."""

SYSCALL_PREFIXES = ("__x64_sys_", "sys_")


def recorded(kernel: str, name: str) -> bytes:
    """Return the content of a recorded file."""
    return (Path(__file__).parent / "data" / kernel / name).read_bytes()


@cache
def table(
    kernel: str,
    *,
    traceable: bool = True,
    blacklist: bool = True,
    installed: InstalledModules | None = None,
) -> FunctionTable:
    """Return the table of a recorded kernel, optionally without lists that may be unreadable."""
    return FunctionTable.from_text(
        recorded(kernel, "kallsyms"),
        traceable=recorded(kernel, "available_filter_functions") if traceable else None,
        blacklist=recorded(kernel, "blacklist") if blacklist else None,
        modules=recorded(kernel, "modules"),
        installed=installed,
    )
