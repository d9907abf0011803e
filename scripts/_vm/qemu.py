# SPDX-License-Identifier: Apache-2.0
"""The command line of one virtual machine."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _vm.accel import Accel
from _vm.accel import arguments as accel_arguments
from _vm.arch import Arch
from _vm.kernel import KernelFiles

AGENT_PORT = "batchprobe"


@dataclass(frozen=True)
class Machine:
    """The parts of a virtual machine."""

    arch: Arch
    kernel: KernelFiles
    userspace: Path
    accel: Accel
    # Boot the compressed image, which chooses its address, as a real machine does.
    kaslr: bool
    cpus: int
    memory: str
    shares: Sequence[Path]
    append: str


def command_line(machine: Machine, *, agent: socket.socket, console: int, initrd: int) -> list[str]:
    """QEMU's command line. QEMU inherits the descriptors."""
    arch = machine.arch
    kernel = machine.kernel
    emulated = machine.accel is Accel.TCG
    plain = kernel.plain if emulated and not machine.kaslr else None
    parameters = [
        f"console={arch.console}",
        "loglevel=5",
        "panic=-1",
        *(arch.boot_params_tcg if emulated else ()),
        machine.append,
    ]
    return [
        arch.qemu,
        *arch.board,
        *accel_arguments(arch, machine.accel),
        *("-smp", str(machine.cpus), "-m", machine.memory),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-kernel", str(plain or kernel.image), "-initrd", f"/proc/self/fd/{initrd}"),
        *("-append", " ".join(p for p in parameters if p)),
        *("-chardev", f"file,id=console,path=/proc/self/fd/{console},append=on"),
        *("-serial", "chardev:console"),
        *_disk(arch, "userspace", machine.userspace),
        *_disk(arch, "kernel", kernel.disk),
        *(("-device", f"virtio-rng-{arch.virtio}") if arch.needs_rng else ()),
        *("-device", f"virtio-serial-{arch.virtio}"),
        *("-chardev", f"socket,id=agent,fd={agent.fileno()}"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *(x for n, path in enumerate(machine.shares) for x in _share(arch, n, path)),
    ]


def _disk(arch: Arch, name: str, image: Path) -> list[str]:
    # snapshot: all guests share the image, and their writes are discarded.
    options = f"if=none,id={name},format=raw,snapshot=on,cache=unsafe"
    return [
        *("-drive", f"{options},file={_escape(image)}"),
        *("-device", f"virtio-blk-{arch.virtio},drive={name},serial={name}"),
    ]


def share_tag(number: int) -> str:
    """The 9p tag of the share with this number."""
    return f"share{number}"


def _share(arch: Arch, number: int, path: Path) -> list[str]:
    tag = share_tag(number)
    options = "security_model=none,multidevs=remap"
    return [
        *("-fsdev", f"local,id={tag},path={_escape(path)},{options}"),
        *("-device", f"virtio-9p-{arch.virtio},fsdev={tag},mount_tag={tag}"),
    ]


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")
