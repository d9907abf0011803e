# SPDX-License-Identifier: Apache-2.0
"""What differs between the architectures of a guest."""

from dataclasses import dataclass
from typing import Final

from _vm.errors import VmError


@dataclass(frozen=True)
class Arch:
    """One architecture, as Debian, QEMU and pip name it."""

    # As --arch takes it.
    name: str
    # As `uname -m` prints it; also the end of pip's platform tags.
    machine: str
    debian: str
    # Kernel packages are named linux-image-FLAVOUR, not always after the architecture (armmp).
    flavour: str
    qemu: str
    # The Debian package of `qemu`.
    qemu_package: str
    # -accel and -smp are chosen elsewhere.
    board: tuple[str, ...]
    cpu_tcg: str
    console: str
    # The suite of the user space: the first that has both this architecture and its bcc.
    userspace: str = "bookworm"
    # Kernels whose own user space is used instead.
    at_home: tuple[str, ...] = ()
    # Kernels that can be booted, the default first.
    kernels: tuple[str, ...] = ("debian-12", "debian-13", "debian-sid")
    # `single`: one emulation thread for all CPUs, `multi`: one per CPU. See accel.py.
    tcg_thread: str = "single"
    # Transport suffix of QEMU's virtio device names (virtio-serial-pci, virtio-serial-ccw).
    virtio: str = "pci"
    # The emulated CPU has no random number instruction, and the boot waits for entropy.
    needs_rng: bool = False
    boot_params_tcg: tuple[str, ...] = ()
    # Packages of the user space that are not built for this architecture.
    lacks: tuple[str, ...] = ()

    @property
    def pip_platforms(self) -> tuple[str, ...]:
        """Platform tags of the wheels that run there."""
        glibc = (17, 28, 31, 34, 36) if self.userspace == "bookworm" else (17, 28, 31, 34, 39, 41)
        linux = [f"manylinux_2_{minor}_{self.machine}" for minor in glibc]
        return (f"manylinux2014_{self.machine}", *linux, "any")


# Devices that are absent need no probing, which shortens the boot.
_PC: Final = ("-machine", "q35,sata=off,smbus=off,usb=off,vmport=off,hpet=off")
# All emulated TSCs are the host's, but the kernel expects them to drift apart. Without this, every
# clock read goes to an emulated device.
_PC_CLOCK: Final = ("tsc=reliable",)

_ALL: Final = (
    Arch(
        name="x86_64",
        machine="x86_64",
        debian="amd64",
        flavour="amd64",
        qemu="qemu-system-x86_64",
        qemu_package="qemu-system-x86",
        board=_PC,
        cpu_tcg="max",
        console="ttyS0",
        kernels=("debian-12", "debian-11", "debian-13", "debian-sid"),
        at_home=("debian-13", "debian-sid"),
        boot_params_tcg=_PC_CLOCK,
    ),
    Arch(
        name="i386",
        machine="i686",
        debian="i386",
        flavour="686-pae",
        qemu="qemu-system-i386",
        qemu_package="qemu-system-x86",
        board=_PC,
        # On the default AMD model the kernel warns that it does not support SMP.
        cpu_tcg="max,vendor=GenuineIntel",
        console="ttyS0",
        # Debian 13 has no kernel for i386.
        kernels=("debian-12",),
        boot_params_tcg=_PC_CLOCK,
        # No suite has libbpfcc for i386.
        lacks=("bpfcc-tools", "python3-bpfcc"),
    ),
    Arch(
        name="arm64",
        machine="aarch64",
        debian="arm64",
        flavour="arm64",
        qemu="qemu-system-aarch64",
        qemu_package="qemu-system-arm",
        board=("-machine", "virt"),
        # Emulating the architected pointer authentication takes most of the run time.
        cpu_tcg="max,pauth-impdef=on",
        # With one thread stop_machine() is slow: see s390x.
        tcg_thread="multi",
        console="ttyAMA0",
    ),
    Arch(
        name="armhf",
        machine="armv7l",
        debian="armhf",
        flavour="armmp-lpae",
        qemu="qemu-system-arm",
        qemu_package="qemu-system-arm",
        board=("-machine", "virt,highmem=off"),
        cpu_tcg="cortex-a15",
        console="ttyAMA0",
        kernels=("debian-12", "debian-13"),
        # With one thread the boot hangs in stop_machine(), when the kernel protects its memory.
        tcg_thread="multi",
        needs_rng=True,
    ),
    Arch(
        name="ppc64el",
        machine="ppc64le",
        debian="ppc64el",
        flavour="powerpc64le",
        qemu="qemu-system-ppc64",
        qemu_package="qemu-system-ppc",
        board=("-machine", "pseries", "-vga", "none"),
        cpu_tcg="POWER9",
        console="hvc0",
    ),
    Arch(
        name="s390x",
        machine="s390x",
        debian="s390x",
        flavour="s390x",
        qemu="qemu-system-s390x",
        qemu_package="qemu-system-misc",
        board=("-machine", "s390-ccw-virtio"),
        cpu_tcg="max",
        console="ttysclp0",
        virtio="ccw",
        # With one thread stop_machine() takes 20 ms, and every breakpoint needs one.
        tcg_thread="multi",
    ),
    Arch(
        name="riscv64",
        machine="riscv64",
        debian="riscv64",
        flavour="riscv64",
        qemu="qemu-system-riscv64",
        qemu_package="qemu-system-misc",
        board=("-machine", "virt"),
        cpu_tcg="rv64",
        console="ttyS0",
        userspace="trixie",
        kernels=("debian-13", "debian-sid"),
        # With one thread everything takes four times as long.
        tcg_thread="multi",
        needs_rng=True,
    ),
)

ARCHES: Final = {arch.name: arch for arch in _ALL}


def find_arch(name: str) -> Arch:
    """The architecture of this name."""
    try:
        return ARCHES[name]
    except KeyError:
        known = ", ".join(ARCHES)
        raise VmError(f"unknown architecture {name} (known: {known})") from None
