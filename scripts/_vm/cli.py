# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/vm."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from _vm import accel, kernel, shares, userspace
from _vm.accel import Accel
from _vm.arch import ARCHES, Arch, find_arch
from _vm.errors import STATUS_SETUP, VmError
from _vm.guest import run_guest
from _vm.kernels import DISTRIBUTIONS, SUITES
from _vm.qemu import Machine
from _vm.relay import FORWARDED, Command
from _vm.run import progress

CHECKOUT: Final = Path(__file__).resolve().parents[2]

_DESCRIPTION: Final = """\
Run a command as root on a distribution's stock kernel, in a virtual machine.

The guest sees the checkout, the current directory and every --share at their own paths,
read-write; the rest of its file system is discarded afterwards. Standard streams, a terminal
and signals are passed on to the command, and its exit status is returned."""

_EPILOG: Final = """\
exit status: the command's own (128+N if signal N ended it; 126, 127 if it could not be run), or
  121  the machine could not be set up
  122  the guest was not up in time
  123  the guest ended before its command did
  124  killed: --timeout, three signals that the command ignored, or ^] three times
  125  the guest's kernel panicked

environment: BATCHPROBE_CACHE  where images are kept (default: ~/.cache/batchprobe)"""

_TOOLS: Final = ("mmdebstrap", "mke2fs", "modprobe", "depmod", "ldconfig", "setpriv", "zstd")

_PASSED: Final = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CI", "TZ")


@dataclass(frozen=True)
class Options:
    """The parsed command line."""

    arch: str
    kernel: str
    userspace: str | None
    cpus: int
    memory: str
    shares: Sequence[Path]
    share_arguments: bool
    packages: Sequence[str]
    append: str
    kaslr: bool
    accel: str | None
    boot_timeout: float
    timeout: float | None
    console: Path | None
    prepare: bool
    command: Sequence[str]


def parse(arguments: Sequence[str]) -> Options:
    """The options; argparse exits with status 2 on a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/vm",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--arch",
        choices=list(ARCHES),
        default="x86_64",
        help="architecture of the guest (%(default)s)",
    )
    add(
        "--kernel",
        choices=list(DISTRIBUTIONS),
        help="kernel to boot (debian-12; debian-13 on riscv64)",
    )
    add(
        "--userspace",
        choices=SUITES,
        help="suite of the user space (the kernel's own with Debian 13 and sid on x86_64, else one "
        "for all kernels of the architecture)",
    )
    add("--cpus", type=_positive, default=2, metavar="N", help="number of CPUs (%(default)s)")
    add("--memory", default="2G", metavar="M", help="size of memory (%(default)s)")
    add(
        "--share",
        type=_absolute,
        action="append",
        default=[],
        metavar="DIR",
        dest="shares",
        help="share this directory too; may be repeated",
    )
    add(
        "--share-arguments",
        action="store_true",
        help="share the directories of the files that CMD's arguments name",
    )
    add(
        "--package",
        action="append",
        default=[],
        metavar="NAME",
        dest="packages",
        help="install this Debian package too, in another user space; may be repeated",
    )
    add("--append", default="", metavar="KERNEL_PARAMS", help="kernel parameters to add")
    add(
        "--kaslr",
        action="store_true",
        help="under emulation too, boot at a random address (3 s slower)",
    )
    add(
        "--accel",
        choices=[a.value for a in Accel],
        help="accelerator (default: KVM if it works here, else emulation)",
    )
    add(
        "--boot-timeout",
        type=float,
        default=180.0,
        metavar="SECONDS",
        help="time limit of the boot (%(default)s)",
    )
    add("--timeout", type=float, metavar="SECONDS", help="kill the machine after this time")
    add("--console", type=_absolute, metavar="FILE", help="write the kernel's console to FILE")
    add("--prepare", action="store_true", help="only build the images; takes no CMD")
    add("command", nargs=argparse.REMAINDER, metavar="[--] CMD...")
    found = parser.parse_args(arguments)
    command = found.command[1:] if found.command[:1] == ["--"] else found.command
    kernels = ARCHES[found.arch].kernels
    if found.kernel is None:
        found.kernel = kernels[0]
    if found.kernel not in kernels:
        parser.error(f"{found.kernel} has no kernel for {found.arch}: {', '.join(kernels)}")
    if bool(command) == found.prepare:
        parser.error("--prepare takes no command" if command else "a command is missing")
    return Options(**{**vars(found), "command": command})


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(text))  # noqa: PTH100 - a symlink in it must stay


def main() -> int:
    """Run scripts/vm; its exit status."""
    _fill_stdio()
    options = parse(sys.argv[1:])
    # Unwinding the stack removes unfinished images and ends the guest.
    for number in FORWARDED:
        signal.signal(number, _unwind)
    try:
        return _run(options)
    except VmError as error:
        progress(str(error))
        return error.status
    except OSError as error:
        progress(str(error))
        return STATUS_SETUP


def _fill_stdio() -> None:
    """Open closed standard streams: none of our files may get their numbers."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _run(options: Options) -> int:
    arch = find_arch(options.arch)
    _require_tools(arch)
    cwd = Path.cwd()
    asked = list(options.shares)
    if options.share_arguments:
        asked += shares.of_arguments(options.command[1:])
    mounts = shares.choose(CHECKOUT, cwd, asked)
    distribution = DISTRIBUTIONS[options.kernel]
    files = kernel.obtain(distribution, arch)
    if options.userspace or distribution.name in arch.at_home:
        arch = replace(arch, userspace=options.userspace or distribution.suite)
    image = userspace.obtain(CHECKOUT, arch, options.packages)
    if options.prepare:
        accel.choose(arch, files)
        return 0
    machine = Machine(
        arch=arch,
        kernel=files,
        userspace=image,
        accel=Accel(options.accel) if options.accel else accel.choose(arch, files),
        kaslr=options.kaslr,
        cpus=options.cpus,
        memory=options.memory,
        shares=mounts,
        append=options.append,
    )
    where = cwd if shares.visible(cwd, mounts) else CHECKOUT
    command = Command(options.command, environment(where), str(where))
    return run_guest(machine, command, options.boot_timeout, options.timeout, options.console)


def environment(cwd: Path) -> list[str]:
    """The command's environment."""
    fixed = {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PWD": str(cwd),
        "PYTHONPATH": f"{CHECKOUT}:{userspace.SITE}",
        "BATCHPROBE_GUEST": "1",
        # Outlives the guest: bcc compiles once per kernel, not once per boot.
        "XDG_CACHE_HOME": f"{CHECKOUT}/.cache",
    }
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith("BATCHPROBE_")
    }
    return [f"{name}={value}" for name, value in {**passed, **fixed}.items()]


def _require_tools(arch: Arch) -> None:
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if all(shutil.which(tool) for tool in (arch.qemu, *_TOOLS)):
        return
    bootstrap = CHECKOUT / "scripts" / "bootstrap"
    if os.geteuid() != 0 or not bootstrap.exists():
        raise VmError(f"tools are missing: run scripts/bootstrap {arch.qemu_package} as root")
    progress("installing the packages that virtual machines need")
    if subprocess.run([bootstrap, arch.qemu_package], stdout=2, check=False).returncode:
        raise VmError(f"scripts/bootstrap {arch.qemu_package} failed")
