# SPDX-License-Identifier: Apache-2.0
"""Which modules are installed: the files that depmod(8) writes."""

from __future__ import annotations

from pathlib import Path

from batchprobe.kernel.module_files import installed_modules

# From Debian's 6.1.0-50-amd64 and 6.12.117+deb13-amd64.
DEP = """\
kernel/arch/x86/events/amd/power.ko:
kernel/fs/btrfs/btrfs.ko.xz: kernel/crypto/xor.ko.xz kernel/lib/raid6/raid6_pq.ko.xz
kernel/sound/pci/hda/snd-hda-intel.ko.xz: kernel/sound/core/snd.ko.xz
"""
BUILTIN = """\
kernel/drivers/usb/host/xhci-pci.ko
kernel/net/ipv4/tcp_cubic.ko
"""


def test_modules_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "modules" / "6.1.0"
    folder.mkdir(parents=True)
    assert installed_modules(tmp_path, release="6.1.0") is None
    (folder / "modules.dep").write_text(DEP)
    assert installed_modules(tmp_path, release="6.1.0") is None
    (folder / "modules.builtin").write_text(BUILTIN)
    found = installed_modules(tmp_path, release="6.1.0")
    assert found is not None
    assert found.loadable == {"power", "btrfs", "snd_hda_intel"}
    assert found.builtin == {"xhci_pci", "tcp_cubic"}
