# SPDX-License-Identifier: Apache-2.0
"""How to run a guest's CPUs: with KVM if a test guest worked under it, else by emulation."""

import contextlib
import os
import platform
import subprocess
import tempfile
from enum import Enum
from pathlib import Path
from typing import Final

from _vm import cache, cpio
from _vm.arch import Arch
from _vm.kernel import KernelFiles
from _vm.run import progress

_DEVICE: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PROBE_SECONDS: Final = 15.0
_WORD: Final = b"this guest works"
_INIT: Final = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
echo this guest works >/dev/console
/bin/busybox poweroff -f
"""


class Accel(Enum):
    """QEMU's accelerators."""

    KVM = "kvm"
    TCG = "tcg"


def choose(arch: Arch, kernel: KernelFiles) -> Accel:
    """KVM if a tiny guest has run under it since the host booted, else TCG."""
    if arch.machine != platform.machine() or not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accel.TCG
    known = cache.cache_dir() / "kvm-works"
    boot = _BOOT_ID.read_text().strip()
    if answer := _known(known, boot):
        return answer
    with cache.locked("kvm-works"):
        if answer := _known(known, boot):
            return answer
        progress(f"testing whether KVM can run a guest here (up to {_PROBE_SECONDS:.0f} s)")
        accel = Accel.KVM if _probe(arch, kernel) else Accel.TCG
        progress(f"using {'KVM' if accel is Accel.KVM else 'emulation'} until the next reboot")
        known.write_text(f"{boot} {accel.value}\n")
        return accel


def _known(file: Path, boot: str) -> Accel | None:
    with contextlib.suppress(OSError, ValueError):
        seen, answer = file.read_text().split()
        if seen == boot:
            return Accel(answer)
    return None


def _probe(arch: Arch, kernel: KernelFiles) -> bool:
    with tempfile.TemporaryDirectory(prefix="batchprobe-kvm-") as scratch:
        initrd, console = Path(scratch, "initrd"), Path(scratch, "console")
        overlay = cpio.archive([cpio.Entry("init", _INIT)])
        initrd.write_bytes(kernel.initramfs.read_bytes() + overlay)
        command = [
            *("setpriv", "--pdeathsig", "KILL", arch.qemu),
            *(*arch.board, *arguments(arch, Accel.KVM), "-m", "512M"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-monitor", "none", "-serial", f"file:{console}"),
            *("-kernel", str(kernel.image), "-initrd", str(initrd)),
            *("-append", f"console={arch.console} panic=-1 quiet"),
        ]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError):
            return False
        return console.exists() and _WORD in console.read_bytes()


def arguments(arch: Arch, accel: Accel) -> list[str]:
    """QEMU's accelerator and CPU."""
    if accel is Accel.KVM:
        return ["-accel", "kvm", "-cpu", "host"]
    # With one thread per CPU, x86 kernels crash under QEMU 7.2 at instructions whose breakpoint was
    # just removed, and batchprobe removes many. Those guests run all CPUs in one thread.
    return ["-accel", f"tcg,thread={arch.tcg_thread}", "-cpu", arch.cpu_tcg]
