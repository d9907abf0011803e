# SPDX-License-Identifier: Apache-2.0
"""Checks of bcc and the kernel headers, which are needed to compile programs, and how to get them.

Where batchprobe ships the programs for the architecture, neither is needed.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from batchprobe import arch
from batchprobe.actions.count import Count
from batchprobe.kernel.host import Finding, Status, lacking, ok
from batchprobe.programs import compiler
from batchprobe.programs.shipped import shipped
from batchprobe.programs.source import compose

__all__ = ["check_bcc", "check_headers", "install_commands"]

# By ID of os-release(5): what installs bcc's Python module, and the running kernel's headers.
_PACKAGES = {
    "debian": ("apt install python3-bpfcc", "apt install linux-headers-{release}"),
    "fedora": ("dnf install python3-bcc", "dnf install kernel-devel-{release}"),
    "arch": ("pacman -S python-bcc", "pacman -S {package}-headers"),
    "suse": ("zypper install bcc-tools", "zypper install kernel-{flavour}-devel={version}"),
    "alpine": ("apk add py3-bcc", "apk add linux-{flavour}-dev"),
}
_NOT_NEEDED = "not needed, the programs for this architecture are shipped"


def check_bcc() -> Finding:
    """Check whether bcc's Python module can be imported, if it is needed."""
    found = _find_bcc()
    status, detail, _ = found
    if status is Status.LACKING and _are_programs_shipped():
        return ok(f"{detail}; {_NOT_NEEDED}")
    return found


def check_headers() -> Finding:
    """Check whether the headers of exactly the running kernel are installed, if they are needed."""
    place = compiler.headers()
    if place is not None:
        return ok(str(place))
    if _are_programs_shipped():
        return ok(f"none for the running kernel; {_NOT_NEEDED}")
    _, command = _install_commands_here()
    release = os.uname().release
    if any(Path(f"/lib/modules/{release}/kernel/kernel").glob("kheaders.ko*")):
        command = "modprobe kheaders"
    return lacking(f"none for the running kernel {release}", command)


def _are_programs_shipped() -> bool:
    adapter = arch.current()
    return shipped(adapter, Count.name, lambda: compose(adapter).text) is not None


def _find_bcc() -> Finding:
    """Find bcc's Python module without importing it, which takes a second."""
    command, _ = _install_commands_here()
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        elsewhere = [*Path("/usr/lib").glob("python3*/*-packages/bcc/libbcc.py")]
        if elsewhere and sys.prefix != sys.base_prefix:
            return lacking(
                "this virtual environment does not see the system's bcc",
                "create it again with --system-site-packages",
            )
        return lacking("bcc's Python module is missing", command)
    folder = Path(spec.origin).parent
    if not (folder / "libbcc.py").exists():
        return lacking(f"{folder} is the unrelated package bcc from PyPI", "pip uninstall bcc")
    found = re.search(r"__version__ = '(.+)'", (folder / "version.py").read_text())
    return ok(f"{found[1] if found else 'unknown version'}, {folder}")


def _install_commands_here() -> tuple[str, str]:
    release = os.uname().release
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    package = Path(f"/usr/lib/modules/{release}/pkgbase")
    return install_commands(
        system, release, package.read_text().strip() if package.exists() else "linux"
    )


def install_commands(
    system: Mapping[str, str], release: str, package: str = "linux"
) -> tuple[str, str]:
    """The commands that install bcc's Python module, and the headers of the kernel `release`.

    `system` has the fields of os-release(5). `package` is the kernel's package, on distributions
    that have several. On an unknown distribution the result is two sentences.
    """
    version, _, flavour = release.rpartition("-")
    names = {"release": release, "version": version, "flavour": flavour, "package": package}
    for name in (system.get("ID", ""), *system.get("ID_LIKE", "").split()):
        if name in _PACKAGES:
            bcc, headers = _PACKAGES[name]
            return bcc.format_map(names), headers.format_map(names)
    return (
        "install bcc's Python module, see INSTALL.md of github.com/iovisor/bcc",
        f"install the headers of the kernel {release}",
    )
