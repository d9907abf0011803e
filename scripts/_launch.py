# SPDX-License-Identifier: Apache-2.0
"""scripts/batchprobe: run it here where this kernel can trace, else in a virtual machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

SCRIPTS = Path(__file__).resolve().parent
CHECKOUT = SCRIPTS.parent
_DEFAULT_KERNEL = "debian-12"
_ANSWERED_HERE = {"--help", "--version", "--install-completion", "--show-completion"}
# Anybody may read it; only the addresses need root.
_SYMBOLS = Path("/proc/kallsyms")


def needs_kernel(arguments: Sequence[str]) -> bool:
    """Whether the command does more than print help, its version or a shell's completion."""
    if list(arguments[:1]) == ["run"]:
        # What follows the tool is the tool's, its --help too, and the tool is in the guest.
        return list(arguments[1:2]) != ["--help"]
    for argument in arguments:
        if argument == "--":
            return True
        if argument in _ANSWERED_HERE:
            return False
    return bool(arguments)


def has_kprobes() -> bool:
    """Whether the running kernel has them."""
    try:
        return b" register_kprobe\n" in _SYMBOLS.read_bytes()
    except OSError:
        return False


def guest_kernel(arguments: Sequence[str], wish: str, can_trace: Callable[[], bool]) -> str | None:
    """The kernel of the virtual machine to run in, None to run here.

    `wish` is BATCHPROBE_VM: a kernel, `never`, or empty.
    """
    if wish == "never" or not needs_kernel(arguments):
        return None
    if wish:
        return wish
    return None if can_trace() else _DEFAULT_KERNEL


def main(arguments: Sequence[str]) -> NoReturn:
    """Become the command."""
    wish = os.environ.get("BATCHPROBE_VM", "")
    kernel = guest_kernel(arguments, wish, has_kprobes)
    if kernel is None:
        _bootstrap("venv")
        python = CHECKOUT / ".venv/bin/python"
        os.execv(python, [str(python), "-m", "batchprobe", *arguments])  # noqa: S606
    if not wish:
        text = "this kernel has no kprobes: running on Debian 12's in a virtual machine"
        print(f"batchprobe: {text}", file=sys.stderr, flush=True)
    _bootstrap("vm")
    vm = [str(SCRIPTS / "vm"), "--kernel", kernel, "--share-arguments", "--"]
    os.execv(vm[0], [*vm, str(SCRIPTS / "batchprobe"), *arguments])  # noqa: S606


def _bootstrap(step: str) -> None:
    done = subprocess.run([SCRIPTS / "bootstrap", step], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
