# SPDX-License-Identifier: Apache-2.0
"""A module to load and unload while its functions are probed."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["DISKSIZE", "INITSTATE", "MODULE", "is_loaded", "load", "unload"]

MODULE = "zram"
# Each read calls the function of the same name, with _show appended, once.
DISKSIZE = Path("/sys/block/zram0/disksize")
INITSTATE = Path("/sys/block/zram0/initstate")


def load() -> None:
    """Load the module."""
    subprocess.run(("modprobe", MODULE), check=True)


def unload() -> subprocess.CompletedProcess[str]:
    """Try to unload the module."""
    return subprocess.run(("rmmod", MODULE), capture_output=True, text=True, check=False)


def is_loaded() -> bool:
    """Whether the module is loaded."""
    return Path(f"/sys/module/{MODULE}").exists()
