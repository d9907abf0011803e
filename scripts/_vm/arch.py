"""What differs between the architectures of a guest."""

from dataclasses import dataclass
from typing import Final

from _vm.errors import VmError


@dataclass(frozen=True)
class Arch:
    """One architecture, in the words of Debian, QEMU and pip."""

    # As `uname -m` prints it.
    name: str
    debian: str
    # Kernel packages are named linux-image-FLAVOUR, not always after the architecture (armmp).
    flavour: str
    qemu: str
    # -accel and -smp are chosen elsewhere.
    machine: tuple[str, ...]
    cpu_tcg: str
    console: str
    # Transport suffix of QEMU's virtio device names (virtio-serial-pci, virtio-serial-ccw).
    virtio: str
    boot_params: tuple[str, ...]
    boot_params_tcg: tuple[str, ...]
    pip_platforms: tuple[str, ...]


_ALL: Final = (
    Arch(
        name="x86_64",
        debian="amd64",
        flavour="amd64",
        qemu="qemu-system-x86_64",
        # Each device that is absent saves the kernel's search for it.
        machine=("-machine", "q35,sata=off,smbus=off,usb=off,vmport=off,hpet=off"),
        cpu_tcg="max",
        console="ttyS0",
        virtio="pci",
        boot_params=(),
        # The kernel suspects the emulated CPUs' counters of disagreeing; they are the host's one.
        # Without it every look at the clock goes through an emulated device.
        boot_params_tcg=("tsc=reliable",),
        pip_platforms=("manylinux2014_x86_64", "any"),
    ),
)

ARCHES: Final = {arch.name: arch for arch in _ALL}


def find_arch(name: str) -> Arch:
    """The table's row for a machine name as `uname -m` prints it."""
    try:
        return ARCHES[name]
    except KeyError:
        known = ", ".join(ARCHES)
        raise VmError(f"no guest of architecture {name} is known here (known: {known})") from None
