# SPDX-License-Identifier: Apache-2.0
"""Disk images from directory trees."""

from pathlib import Path

from _vm.run import tool


def make_ext4(tree: Path, image: Path, *, spare_mib: int) -> None:
    """An ext4 image of `tree` with room for `spare_mib` more; holes take no space."""
    used_kib = int(tool(["du", "-sk", tree]).split()[0])
    size_kib = used_kib * 115 // 100 + spare_mib * 1024
    # No journal: guests write to a snapshot that is discarded.
    options = ["-t", "ext4", "-O", "^has_journal", "-m", "0"]
    tool(["mke2fs", "-q", *options, "-d", str(tree), str(image), f"{size_kib}k"])
