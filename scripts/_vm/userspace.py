# SPDX-License-Identifier: Apache-2.0
"""The guests' user space: one disk image for all kernels, and one per set of extra packages."""

import shutil
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from _vm import cache
from _vm.apt import KEYRING, STALE, PrivateApt
from _vm.arch import Arch
from _vm.disk import make_ext4
from _vm.run import progress, tool

SITE: Final = "/opt/site"

PACKAGES: Final = (
    "base-files",
    "base-passwd",
    "bash",
    "bpfcc-tools",
    "bpftool",
    "busybox-static",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "kmod",
    "less",
    "libpam-modules",
    "libpam-runtime",
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "passwd",
    "procps",
    "psmisc",
    "python3",
    "python3-bpfcc",
    "sed",
    "tar",
    "util-linux",
    "util-linux-extra",
    "xz-utils",
    "zstd",
)

# Links that maintainer scripts make; extract mode runs none.
_LINKS: Final = {
    "usr/bin/sh": "dash",
    "usr/bin/awk": "mawk",
    "usr/bin/which": "which.debianutils",
    "etc/mtab": "../proc/self/mounts",
}

_FILES: Final = {
    "etc/hostname": "vm\n",
    "etc/hosts": "127.0.0.1 localhost vm\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "etc/resolv.conf": "",
    # root may become any user, and no user may become root.
    "etc/pam.d/common-auth": "auth required pam_deny.so\n",
    "etc/pam.d/common-account": "account required pam_permit.so\n",
    "etc/pam.d/common-password": "password required pam_deny.so\n",
    "etc/pam.d/common-session": "session required pam_permit.so\n",
    "etc/pam.d/common-session-noninteractive": "session required pam_permit.so\n",
}

_UNUSED: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


def requirements(checkout: Path) -> list[str]:
    """What the package and its tests require from PyPI."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {})
    return [*project["dependencies"], *extras.get("test", [])]


def obtain(checkout: Path, arch: Arch, more: Collection[str] = ()) -> Path:
    """The image with `more` packages, built if it is not cached."""
    wanted = requirements(checkout)
    facts = [arch.debian, *arch.pip_platforms, arch.userspace, *sorted(wanted), *sorted(more)]
    key = cache.key_of([cache.source_of(__file__), *facts])
    name = f"userspace-{'more-' if more else ''}{arch.debian}"

    def build(product: Path) -> None:
        what = " ".join(["the guests' user space", *(["with", *sorted(more)] if more else [])])
        progress(f"building {what} from Debian {arch.userspace} (a minute, once)")
        tree = product.parent / "tree"
        there = [p for p in PACKAGES if p not in arch.lacks]
        _extract(tree, arch.debian, arch.userspace, [*there, *more])
        _settle(tree)
        _install_site(tree, product.parent / "pip", wanted, arch)
        _compile(tree, product.parent / "python", arch)
        make_ext4(tree, product / "disk.img", spare_mib=3072)

    return cache.obtain(name, key, build) / "disk.img"


def _extract(tree: Path, architecture: str, suite: str, packages: Collection[str]) -> None:
    hooks = "/usr/share/mmdebstrap/hooks/merged-usr"
    apt = PrivateApt(tree.parent / f"{tree.name}-apt", suite, architecture)
    tool(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--hook-dir={hooks}"),
            *(f"--keyring={KEYRING}", f"--architectures={architecture}"),
            f'--aptopt={STALE} "false"',
            f"--include={','.join(packages)}",
            *(suite, str(tree), apt.source),
        ],
        env={"TMPDIR": str(tree.parent)},
    )


def _settle(tree: Path) -> None:
    """Do what a guest needs of the maintainer scripts' work."""
    for name in _UNUSED:
        shutil.rmtree(tree / name, ignore_errors=True)
    for name, target in _LINKS.items():
        link = tree / name
        if not link.is_symlink():
            link.symlink_to(target)
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    users = (tree / "etc/passwd").read_text().splitlines()
    shadow = tree / "etc/shadow"
    shadow.write_text("".join(f"{u.split(':')[0]}:*:19000:0:99999:7:::\n" for u in users))
    shadow.chmod(0o640)
    for name, text in _FILES.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in ("kernel", "usr/lib/modules", "usr/src", "boot", "root"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    tool(["ldconfig", "-r", str(tree)])


def _install_site(tree: Path, scratch: Path, wanted: list[str], arch: Arch) -> None:
    tool(["/usr/bin/python3", "-m", "venv", str(scratch)])
    platforms = [x for p in arch.pip_platforms for x in ("--platform", p)]
    tool(
        [
            *(str(scratch / "bin/pip"), "install", "--quiet", "--no-compile"),
            *("--target", str(tree / SITE.lstrip("/"))),
            *("--only-binary=:all:", "--implementation=cp", *platforms),
            *(f"--python-version={_python_version(tree)}", *wanted),
        ]
    )


def _python_version(tree: Path) -> str:
    return (tree / "usr/bin/python3").readlink().name.removeprefix("python")


def _compile(tree: Path, scratch: Path, arch: Arch) -> None:
    """Compile to bytecode now: under emulation every boot would pay for it."""
    version = _python_version(tree)
    # One process per CPU; the other Python cannot start any.
    python: list[str] = [sys.executable]
    workers = "0"
    env: dict[str, str] = {}
    if version != f"{sys.version_info.major}.{sys.version_info.minor}":
        python, env = _other_python(scratch, version, arch)
        workers = "1"
    folders = ["usr/lib/python3", f"usr/lib/python{version}", SITE.lstrip("/")]
    tool(
        [
            *(*python, "-m", "compileall", "-q"),
            *("-j", workers, "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"),
            *(str(tree / folder) for folder in folders),
        ],
        env={"PYTHONDONTWRITEBYTECODE": "", **env},
    )


def _other_python(scratch: Path, version: str, arch: Arch) -> tuple[list[str], dict[str, str]]:
    """The guest's version of Python for the host: bytecode fits one version only."""
    own = tool(["dpkg", "--print-architecture"]).strip()
    _extract(
        scratch, own, arch.userspace, [f"python{version}-minimal", f"libpython{version}-stdlib"]
    )
    libraries = [f for f in scratch.glob("usr/lib/*-linux-gnu*") if f.is_dir()]
    loader = next(scratch.glob("usr/lib*/ld-linux-*"), None)
    loader = loader or next(f for folder in libraries for f in folder.glob("ld-linux-*"))
    paths = ":".join(str(folder) for folder in libraries)
    python = scratch / f"usr/bin/python{version}"
    return [str(loader), "--library-path", paths, str(python)], {"PYTHONHOME": str(scratch / "usr")}
