"""The BPF maps behind one attach call: a slot a probe, with its gate and its per-CPU counts."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import add
from threading import Lock
from typing import TYPE_CHECKING

from batchprobe.errors import KernelError, SessionError, UnsupportedError
from batchprobe.kernel.host import version
from batchprobe.programs.program import HASH_BITS, MOST_PLACE_BITS
from batchprobe.sys import bpf, fds
from batchprobe.sys.files import read_text

if TYPE_CHECKING:
    from batchprobe.programs.program import Program

__all__ = ["NO_SLOT", "Bank", "Cells", "Counts", "possible_cpus"]

# Where the program counts the hits that no open gate wanted.
NO_SLOT = 0
_CELL = 8
_CACHE_LINE_CELLS = 8
_STRAYS = 4096
# So many places for each instruction pointer: few find theirs taken.
_PLACES_EACH = 8
_FIBONACCI = 2654435769  # 2**32 by the golden ratio: spreads what is near
# Asked for fewer than one slot in so many, it is quicker to read them alone.
_FEW = 8


def possible_cpus() -> int:
    """One more than the highest CPU number there can be (/sys/devices/system/cpu/possible)."""
    text = read_text("/sys/devices/system/cpu/possible")
    return int(text.strip().replace(",", "-").rpartition("-")[2]) + 1


def place_of(ip: int, bits: int) -> int:
    """Where among 2**bits places a program looks for an instruction pointer first (bpf/hit.h)."""
    return (ip * _FIBONACCI & (1 << HASH_BITS) - 1) >> (HASH_BITS - bits)


def _lift_memlock() -> None:
    """Before Linux 5.11 maps are charged to RLIMIT_MEMLOCK, 64 KiB by default."""
    if version(os.uname().release) >= (5, 11):
        return
    import resource  # noqa: PLC0415  (old kernels only)

    with suppress(ValueError, OSError):  # without the right to: the maps will tell
        resource.setrlimit(
            resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )


class Cells:
    """A BPF array of u64 mapped into this process (BPF_F_MMAPABLE, Linux 5.5).

    Reading or writing a cell is a memory access: no system call, and so no probe that the kernel
    would skip while it serves one.
    """

    def __init__(self, name: str, count: int, cells: int = 1) -> None:
        """`count` elements of so many cells."""
        self.fd = bpf.map_create(
            name,
            bpf.BPF_MAP_TYPE_ARRAY,
            key_size=4,
            value_size=cells * _CELL,
            entries=count,
            flags=bpf.BPF_F_MMAPABLE,
        )
        try:
            memory = bpf.mapped(name, self.fd, count * cells * _CELL, writable=True)
        except KernelError:
            fds.close(self.fd)
            raise
        self.cells = memory.cast("Q")

    def close(self) -> None:
        self.cells.release()
        fds.close(self.fd)


class Counts:
    """Hits by slot at one moment. They are copied at once, and added up when first asked for."""

    def __init__(self, hits: dict[int, int] | memoryview, cpus: int, adopted: Mapping[int, int]):
        self._hits: dict[int, int] | list[int] | memoryview = hits
        self._cpus = cpus
        self._adopted = adopted

    def __getitem__(self, slot: int) -> int:
        # Two threads may both add up, to the same sums.
        hits = self._hits
        if isinstance(hits, memoryview):
            hits = self._hits = self._added_up(hits)
        return hits[slot]

    def _added_up(self, cells: memoryview) -> list[int]:
        stride = len(cells) // self._cpus
        totals: list[int] = cells[:stride].tolist()
        for cpu in range(1, self._cpus):
            totals = list(map(add, totals, cells[cpu * stride : (cpu + 1) * stride].tolist()))
        for slot, hits in self._adopted.items():
            totals[slot] += hits
        return totals


class Bank:
    """Slots 1 to `slots`, all gates closed, all counts 0.

    There will be up to `addresses` instruction pointers; with `strays`, also some nobody knows yet.
    Raises UnsupportedError where the maps cannot be had.
    """

    def __init__(self, slots: int, *, addresses: int, strays: bool) -> None:
        self.slots = slots
        self.cpus = possible_cpus()
        # CPUs share no cache line.
        self._stride = -(-(slots + 1) // _CACHE_LINE_CELLS) * _CACHE_LINE_CELLS
        self._fds: dict[str, int] = {}
        self._programs: list[int] = []
        self._arrays: list[Cells] = []
        self._adopted: dict[int, int] = {}
        # Held by close, and by who reads a bank that may be closed meanwhile.
        self.lock = Lock()
        _lift_memlock()
        self.has_strays = strays
        bits = (addresses * _PLACES_EACH - 1).bit_length()
        self._place_bits = min(bits, MOST_PLACE_BITS)
        self._pid = os.getpid()
        try:
            self._gates = self.array("gates", slots + 1)
            self._gates.cells[NO_SLOT] = self._stride
            self._counts = self.array("counts", self._stride * self.cpus)
            self._places = self.array("places", 1 << self._place_bits, cells=2)
            # A stray that is adopted is in both, and a module may be elsewhere each time it comes.
            room = _STRAYS if strays else 0
            for name, entries in (("slots", addresses + room), ("strays", max(room, 1))):
                self._fds[name] = bpf.map_create(
                    name,
                    bpf.BPF_MAP_TYPE_HASH,
                    key_size=_CELL,
                    value_size=_CELL,
                    entries=entries,
                )
        except KernelError as error:
            self.close()
            raise UnsupportedError(
                f"the maps for {slots} probes: {error}", remedy="more memory, or CAP_SYS_RESOURCE"
            ) from None

    def require_ours(self) -> None:
        """Raise SessionError in a forked child: its descriptors are closed, its locks unknown."""
        if os.getpid() != self._pid:
            raise SessionError(f"the probes are process {self._pid}'s")

    def array(self, name: str, count: int, cells: int = 1) -> Cells:
        """One more array for the programs, closed with the bank."""
        array = Cells(name, count, cells)
        self._arrays.append(array)
        self._fds[name] = array.fd
        return array

    def load(self, program: Program, *, attach_type: int = 0, epoch: int = 0) -> int:
        """Load a program on the maps of this bank; returns its fd. A link's has an epoch."""
        shift = HASH_BITS - self._place_bits
        operands = {**self._fds, "PLACE_SHIFT": shift, "EPOCH": epoch}
        fd = program.load(operands, attach_type=attach_type)
        self._programs.append(fd)
        return fd

    def unload(self, fd: int) -> None:
        """A program that nothing runs any more."""
        self._programs.remove(fd)
        fds.close(fd)

    def address(self, *slots: tuple[int, int]) -> None:
        """From now on a hit with this instruction pointer belongs to this slot, of each pair."""
        cells, bits = self._places.cells, self._place_bits
        for ip, slot in slots:
            at = 2 * place_of(ip, bits)
            if cells[at] in (0, ip):
                # In this order: a program that finds the instruction pointer takes the slot.
                cells[at + 1] = slot
                cells[at] = ip
            else:
                key, value = struct.pack("=Q", ip), struct.pack("=Q", slot)
                bpf.map_update(self._fds["slots"], key, value)

    def open_gates(self, slots: Iterable[int]) -> None:
        """From the program's next map read on, hits of these slots are counted."""
        for slot in slots:
            self._gates.cells[slot] = self._stride

    def close_gates(self, slots: Iterable[int]) -> None:
        """The top half of a detach: no new hit is recorded from the next map read on."""
        for slot in slots:
            self._gates.cells[slot] = 0

    def close_all_gates(self) -> None:
        """The same for every slot, as one copy."""
        first = NO_SLOT + 1
        size = self._gates.cells[first:].nbytes
        self._gates.cells[first:] = memoryview(bytes(size)).cast("Q")

    def count(self, slot: int) -> int:
        """Hits of one slot on all CPUs so far."""
        return self._hits(slot) + self._adopted_hits().get(slot, 0)

    def counts(self) -> Counts:
        """Hits of every slot so far, by slot."""
        copy = memoryview(self._counts.cells.tobytes()).cast("Q")
        return Counts(copy, self.cpus, self._adopted_hits())

    def finals(self, slots: Sequence[int]) -> Counts:
        """The same where only these slots will be asked for, later."""
        if len(slots) * _FEW > self.slots:
            return self.counts()
        adopted = self._adopted_hits()
        hits = {slot: self._hits(slot) + adopted.get(slot, 0) for slot in slots}
        return Counts(hits, self.cpus, {})

    def _hits(self, slot: int) -> int:
        return sum(self._counts.cells[slot :: self._stride][: self.cpus])

    def runs(self) -> int:
        """How often a by-address program of this bank ran."""
        cells = sum(self._counts.cells)
        return cells + sum(self.strays().values())

    def strays(self) -> dict[int, int]:
        """Hits by instruction pointer, from before its slot was known."""
        items = bpf.map_items(self._fds["strays"], _CELL, _CELL)
        return {struct.unpack("=Q", key)[0]: struct.unpack("=Q", value)[0] for key, value in items}

    def adopt(self, ip: int, slot: int) -> None:
        """A stray's slot is known now: what it hit before counts too.

        Its stray count stays where it is, so that no hit is lost between two maps.
        """
        self.address((ip, slot))
        self._adopted[ip] = slot

    def unknown_strays(self) -> dict[int, int]:
        """Hits by instruction pointer, of those that belong to no slot yet."""
        return {ip: hits for ip, hits in self.strays().items() if ip not in self._adopted}

    def _adopted_hits(self) -> dict[int, int]:
        hits: dict[int, int] = {}
        if self._adopted:
            for ip, count in self.strays().items():
                if ip in self._adopted:
                    slot = self._adopted[ip]
                    hits[slot] = hits.get(slot, 0) + count
        return hits

    def close(self) -> None:
        """Free the maps and programs; carriers must be gone."""
        with self.lock:
            for fd in self._programs:
                fds.close(fd)
            self._programs.clear()
            arrays = {array.fd for array in self._arrays}
            for fd in set(self._fds.values()) - arrays:
                fds.close(fd)
            self._fds.clear()
            for array in self._arrays:
                array.close()
            self._arrays.clear()
