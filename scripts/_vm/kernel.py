# SPDX-License-Identifier: Apache-2.0
"""A distribution's kernel: its image, an initramfs, and a disk with modules and headers."""

import lzma
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _vm import cache, cpio
from _vm.apt import PrivateApt
from _vm.arch import Arch
from _vm.bzimage import plain_kernel
from _vm.disk import make_ext4
from _vm.errors import VmError
from _vm.kernels import Distribution
from _vm.run import progress, tool

_WANTED: Final = re.compile(r"linux-(image|binary|modules|headers|base)-")

_BOOT_MODULES: Final = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "ext4",
)


@dataclass(frozen=True)
class KernelFiles:
    """The files that QEMU needs to boot one kernel."""

    image: Path
    # The uncompressed kernel, where QEMU can boot it.
    plain: Path | None
    initramfs: Path
    disk: Path


def obtain(distribution: Distribution, arch: Arch) -> KernelFiles:
    """The kernel of a distribution, fetched if it is not cached."""
    facts = [arch.debian, arch.flavour, distribution.name, distribution.suite]
    key = cache.key_of([cache.source_of(__file__), *facts])

    def build(product: Path) -> None:
        progress(f"fetching the kernel of {distribution.name} ({distribution.suite})")
        _build(product, distribution, arch)

    folder = cache.obtain(f"{distribution.name}-{arch.debian}", key, build)
    plain = folder / "vmlinux"
    return KernelFiles(
        image=folder / "vmlinuz",
        plain=plain if plain.exists() else None,
        initramfs=folder / "initramfs.cpio",
        disk=folder / "disk.img",
    )


def _build(product: Path, distribution: Distribution, arch: Arch) -> None:
    scratch = product.parent
    apt = PrivateApt(scratch / "apt", distribution.suite, arch.debian)
    seeds = [f"linux-image-{arch.flavour}", f"linux-headers-{arch.flavour}"]
    packages = [*apt.closure(seeds, _WANTED), "busybox-static"]
    # Unpack the packages whole: some suites use lib/, others usr/lib/.
    unpacked = scratch / "unpacked"
    for file in apt.download(packages):
        tool(["dpkg-deb", "-x", str(file), str(unpacked)])
    tree = scratch / "tree"
    release = _arrange(unpacked, tree)
    tool(["depmod", "-b", str(tree), release])
    # Without a self-extracting kernel, packages ship a vmlinux.
    modules = f"lib/modules/{release}"
    places = [f"boot/vmlinu{x}-{release}" for x in "zx"] + [f"{modules}/vmlinu{x}" for x in "zx"]
    image = next((tree / place for place in places if (tree / place).is_file()), None)
    if image is None:
        raise VmError(f"the packages of {distribution.name} contain no kernel image for {release}")
    (product / "vmlinuz").write_bytes(image.read_bytes())
    if arch.name == "x86_64" and (plain := plain_kernel(image.read_bytes())):
        (product / "vmlinux").write_bytes(plain)
    busybox = next(unpacked.glob("**/bin/busybox"))
    (product / "initramfs.cpio").write_bytes(_initramfs(tree, release, busybox))
    make_ext4(tree, product / "disk.img", spare_mib=64)


def _arrange(unpacked: Path, tree: Path) -> str:
    """Move what a guest needs to `tree`; the kernel's release name."""
    for source, target in (
        ("lib/modules", "lib/modules"),
        ("usr/lib/modules", "lib/modules"),
        ("usr/src", "usr/src"),
        ("boot", "boot"),
    ):
        for item in sorted((unpacked / source).glob("*")):
            place = tree / target / item.name
            if place.exists():
                tool(["cp", "-a", f"{item}/.", str(place)])
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                item.rename(place)
    releases = [f.name for f in (tree / "lib/modules").iterdir() if (f / "kernel").is_dir()]
    if len(releases) != 1:
        raise VmError(f"expected modules of one kernel, found {releases or 'none'}")
    release = releases[0]
    # Some packages leave this to a maintainer script.
    config = tree / f"lib/modules/{release}/config"
    if config.is_file():
        (tree / "boot").mkdir(exist_ok=True)
        (tree / f"boot/config-{release}").write_bytes(config.read_bytes())
    return release


def _initramfs(tree: Path, release: str, busybox: Path) -> bytes:
    entries = [cpio.directory(d) for d in ("bin", "dev", "proc", "sys", "new", "modules")]
    entries.append(cpio.Entry("bin/busybox", busybox.read_bytes()))
    names = []
    for file in _boot_modules(tree, release):
        name = re.sub(r"\.(xz|zst|gz)$", "", file.name)
        names.append(name)
        entries.append(cpio.Entry(f"modules/{name}", _plain(file)))
    entries.append(cpio.Entry("modules/order", "".join(f"{n}\n" for n in names).encode()))
    return cpio.archive(entries)


def _boot_modules(tree: Path, release: str) -> list[Path]:
    """Module files in the order of insertion."""
    found: dict[Path, None] = {}
    for module in _BOOT_MODULES:
        shown = subprocess.run(
            ["modprobe", "-d", str(tree), "-S", release, "--show-depends", module],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for line in shown.splitlines():
            word, _, path = line.partition(" ")
            if word == "insmod":
                found[Path(path.strip())] = None
    return list(found)


def _plain(file: Path) -> bytes:
    if file.suffix == ".xz":
        return lzma.decompress(file.read_bytes())
    if file.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", file], capture_output=True, check=True).stdout
    return file.read_bytes()
