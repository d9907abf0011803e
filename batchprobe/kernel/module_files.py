# SPDX-License-Identifier: Apache-2.0
"""Which modules are installed for a kernel: what depmod(8) wrote about them."""

from __future__ import annotations

import os
from os import PathLike

from batchprobe.sys.files import read_text

__all__ = ["InstalledModules", "installed_modules"]


class InstalledModules:
    """The modules of a kernel by name, with `_` for `-`."""

    def __init__(self, loadable: frozenset[str], builtin: frozenset[str]) -> None:
        self.loadable = loadable
        """Those in a file, loaded or not."""
        self.builtin = builtin
        """Those that are part of the core kernel."""


def installed_modules(
    root: str | PathLike[str] = "", *, release: str | None = None
) -> InstalledModules | None:
    """The modules of the running kernel, or of `release`; None if that cannot be read, as in most
    containers.
    """
    folder = f"{root}/lib/modules/{release or os.uname().release}"
    try:
        loadable = read_text(f"{folder}/modules.dep")
        builtin = read_text(f"{folder}/modules.builtin")
    except OSError:
        return None
    return InstalledModules(_names(loadable), _names(builtin))


def _names(text: str) -> frozenset[str]:
    """The names in lines such as "kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/xor.ko.xz"."""
    paths = (line.partition(":")[0] for line in text.splitlines())
    files = (path.rpartition("/")[2] for path in paths)
    return frozenset(file.partition(".ko")[0].replace("-", "_") for file in files if file)
