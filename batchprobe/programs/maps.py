# SPDX-License-Identifier: Apache-2.0
"""BPF maps: arrays that are mapped into this process, and descriptions of maps to be created."""

from __future__ import annotations

import contextlib
import os

from batchprobe.errors import KernelError
from batchprobe.kernel.host import kernel_version
from batchprobe.sys import bpf, fds, libc
from batchprobe.sys.files import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["CELL_SIZE", "Cells", "MapSpec", "SlotLayout", "lift_memlock_limit", "possible_cpus"]

CELL_SIZE = 8
_CELLS_PER_CACHE_LINE = 8


def possible_cpus() -> int:
    """One more than the highest CPU number the kernel may use (sysfs, devices/system/cpu)."""
    text = read_text("/sys/devices/system/cpu/possible")
    return int(text.strip().replace(",", "-").rpartition("-")[2]) + 1


def lift_memlock_limit() -> None:
    """Before Linux 5.11 maps are charged to RLIMIT_MEMLOCK, 64 KiB by default."""
    if kernel_version(os.uname().release) >= (5, 11):
        return
    import resource  # noqa: PLC0415  (old kernels only)

    # Without the right to raise it, creating the maps reports what is wrong.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )


class SlotLayout:
    """How per-CPU values of slots lie in one array: cell[cpu * stride + slot]."""

    __slots__ = ("cpus", "slots", "stride")

    def __init__(self, slots: int) -> None:
        """The layout for this many slots on this machine."""
        self.slots = slots
        """Slots 1 to this; slot 0 stands for no probe."""
        self.cpus = possible_cpus()
        self.stride = -(-(slots + 1) // _CELLS_PER_CACHE_LINE) * _CELLS_PER_CACHE_LINE
        """Cells per CPU, a multiple of a cache line, so that CPUs share none."""

    @property
    def cells(self) -> int:
        """All cells, of all CPUs."""
        return self.stride * self.cpus


class MapSpec:
    """A map that an action or a filter needs; its C declares one of the same name with bcc.

    `map_type` is a BPF_MAP_TYPE_* (include/uapi/linux/bpf.h), sizes are in bytes.
    """

    __slots__ = ("entries", "key_size", "map_type", "name", "value_size")

    def __init__(
        self, name: str, map_type: int, key_size: int, value_size: int, entries: int
    ) -> None:
        self.name = name
        self.map_type = map_type
        self.key_size = key_size
        self.value_size = value_size
        self.entries = entries

    @classmethod
    def array(cls, name: str, count: int, cells: int = 1) -> Self:
        """`count` elements of `cells` u64 each, mapped into this process."""
        return cls(name, bpf.BPF_MAP_TYPE_ARRAY, 4, cells * CELL_SIZE, count)

    @classmethod
    def hash(cls, name: str, entries: int) -> Self:
        """A hash map from u64 to u64."""
        return cls(name, bpf.BPF_MAP_TYPE_HASH, CELL_SIZE, CELL_SIZE, entries)

    @classmethod
    def per_cpu(cls, name: str, cells: int) -> Self:
        """One element of `cells` u64 for each CPU, which only programs use."""
        return cls(name, bpf.BPF_MAP_TYPE_PERCPU_ARRAY, 4, cells * CELL_SIZE, 1)

    @classmethod
    def ring(cls, name: str, size: int) -> Self:
        """A ring buffer (Linux 5.8); the size is a power of two, and whole pages."""
        return cls(name, bpf.BPF_MAP_TYPE_RINGBUF, 0, 0, size)

    @classmethod
    def programs(cls, name: str, count: int) -> Self:
        """`count` places for programs that another one calls by bpf_tail_call()."""
        return cls(name, bpf.BPF_MAP_TYPE_PROG_ARRAY, 4, 4, count)


class Cells:
    """A BPF array of u64 that is mapped into this process (BPF_F_MMAPABLE, Linux 5.5).

    Reading or writing it takes no system call. A map system call may make the kernel skip BPF
    programs on that CPU meanwhile (bpf_prog_active).
    """

    def __init__(self, spec: MapSpec) -> None:
        self.fd = bpf.map_create(
            spec.name,
            spec.map_type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            entries=spec.entries,
            flags=bpf.BPF_F_MMAPABLE,
        )
        try:
            size = spec.entries * spec.value_size
            memory = libc.mapped(spec.name, self.fd, size, writable=True)
        except KernelError:
            fds.close(self.fd)
            raise
        self.cells = memory.cast("Q")

    def close(self) -> None:
        """Unmap and close it."""
        self.cells.release()
        fds.close(self.fd)
