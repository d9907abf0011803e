# SPDX-License-Identifier: Apache-2.0
"""The BPF maps behind one kernel object: a slot per probe, with its gate and its hits per CPU."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from operator import add
from threading import RLock

from batchprobe import arch
from batchprobe._util.counted import counted
from batchprobe.errors import KernelError, SessionError, UnsupportedError
from batchprobe.programs.maps import CELL_SIZE, Cells, MapSpec, SlotLayout, lift_memlock_limit
from batchprobe.programs.program import (
    ARGUMENTS_AT,
    BUCKET_SHIFT,
    EPOCH,
    HASH_BITS,
    INSTRUCTION_POINTER_AT,
    MAPS_ID,
    MAX_BUCKET_BITS,
    RESULT_AT,
    SESSION_IS_RETURN,
    STACK_MOVES,
    STACK_POINTER_AT,
    Program,
)
from batchprobe.sys import bpf, fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.programs.ring_buffer import RingBuffer

__all__ = ["NO_SLOT", "Hits", "ProbeMaps"]

NO_SLOT = 0
"""Counts runs that counted for no probe: the gate was closed or a filter rejected the hit."""
_UNCLAIMED_ENTRIES = 4096
# At 8 buckets per instruction pointer, about 3 % collide and fall back to the hash map.
_BUCKETS_PER_IP = 8
# 2**32 divided by the golden ratio: spreads neighbours (Fibonacci hashing).
_FIBONACCI = 2654435769
_MAX_NAME = 15  # BPF_OBJ_NAME_LEN less the NUL, include/uapi/linux/bpf.h
_ids = count(1)
# Below 1/8 of the slots, reading them one by one beats copying the array.
_FEW = 8


def bucket_of(ip: int, bits: int) -> int:
    """The bucket, of 2**bits, that hit_at() in bpf/hit.h looks at."""
    return (ip * _FIBONACCI & (1 << HASH_BITS) - 1) >> (HASH_BITS - bits)


class Hits:
    """Hits by slot at one moment: copied at once, summed over the CPUs when first read."""

    def __init__(self, cells: memoryview, cpus: int, claimed: Mapping[int, int]) -> None:
        """`claimed` are hits that were counted by instruction pointer, by slot."""
        self._cells: memoryview | None = cells
        self._cpus = cpus
        self._claimed = claimed
        self._totals: list[int] | dict[int, int] = []

    @classmethod
    def of(cls, totals: dict[int, int]) -> Hits:
        """Hits that are summed already."""
        hits = cls(memoryview(b""), 0, {})
        hits._cells, hits._totals = None, totals
        return hits

    def __getitem__(self, slot: int) -> int:
        return self.totals()[slot]

    def totals(self) -> list[int] | dict[int, int]:
        """All of them by slot."""
        cells = self._cells
        if cells is not None:
            # Two threads may both add up, to the same sums.
            self._totals = self._summed(cells)
            self._cells = None
        return self._totals

    def _summed(self, cells: memoryview) -> list[int]:
        stride = len(cells) // self._cpus
        totals: list[int] = cells[:stride].tolist()
        for cpu in range(1, self._cpus):
            totals = list(map(add, totals, cells[cpu * stride : (cpu + 1) * stride].tolist()))
        for slot, hits in self._claimed.items():
            totals[slot] += hits
        return totals


class ProbeMaps:
    """Slots 1 to `slots`, with all gates closed and all hits 0.

    Raises UnsupportedError where the kernel refuses a map.
    """

    def __init__(
        self,
        slots: int,
        *,
        ips: int,
        unclaimed: bool = False,
        extra_maps: Callable[[SlotLayout], Iterable[MapSpec]] = lambda _layout: (),
        constants: Mapping[str, int] | None = None,
        shared: Mapping[str, int] | None = None,
    ) -> None:
        """`ips` instruction pointers will name the slots; with `unclaimed`, also some that are not
        known yet. `extra_maps` are those of the action and its filters, `constants` their numbers,
        `shared` descriptors of maps by name that outlive these.
        """
        self.layout = SlotLayout(slots)
        self._fds: dict[str, int] = {}
        self._programs: list[int] = []
        self._arrays: list[Cells | RingBuffer] = []
        self.rings: dict[str, RingBuffer] = {}
        """Of `extra_maps`, by name."""
        self._claimed: dict[int, int] = {}
        self._constants = {**(constants or {}), **(shared or {})}
        self.lock = RLock()
        """Held by `close`, and by whoever reads the maps while another thread may commit."""
        self.has_unclaimed = unclaimed
        bits = (ips * _BUCKETS_PER_IP - 1).bit_length()
        self._bucket_bits = min(bits, MAX_BUCKET_BITS)
        self._pid = os.getpid()
        self._id = next(_ids)
        self.stack_moves = 0
        """STACK_MOVES of the next program that is loaded; 0 if it is unknown."""
        self.session_is_return = 0
        """SESSION_IS_RETURN of the next program that is loaded for a session."""
        lift_memlock_limit()
        try:
            self._gates = self.add_array(MapSpec.array("gates", slots + 1))
            self._gates.cells[NO_SLOT] = self.layout.stride
            self._hits = self.add_array(MapSpec.array("hits", self.layout.cells))
            self._buckets = self.add_array(
                MapSpec.array("buckets", 1 << self._bucket_bits, cells=2)
            )
            # A claimed instruction pointer is in both maps, and a module may come back elsewhere.
            room = _UNCLAIMED_ENTRIES if unclaimed else 0
            self._add(MapSpec.hash("slots", ips + room))
            self._add(MapSpec.hash("unclaimed", max(room, 1)))
            self.arrays = {spec.name: self._add(spec) for spec in extra_maps(self.layout)}
            """Of `extra_maps`: mapped arrays by name; None for maps of other types."""
        except BaseException as error:
            self.close()
            if not isinstance(error, KernelError):
                raise
            raise UnsupportedError(
                f"cannot create the maps for {counted(slots, 'probe')}: {error}",
                remedy="they need Linux 5.5, free memory, or CAP_SYS_RESOURCE",
            ) from error

    @property
    def is_closed(self) -> bool:
        """Whether the maps are freed."""
        return not self._fds

    def require_ours(self) -> None:
        """Raise SessionError in a forked child: its descriptors are closed, its locks unknown."""
        if os.getpid() != self._pid:
            raise SessionError(f"the probes belong to process {self._pid}")

    def _add(self, spec: MapSpec) -> Cells | None:
        if spec.map_type == bpf.BPF_MAP_TYPE_ARRAY:
            return self.add_array(spec)
        self._check_name(spec)
        if spec.map_type == bpf.BPF_MAP_TYPE_RINGBUF:
            self._add_ring(spec)
            return None
        self._fds[spec.name] = bpf.map_create(
            spec.name,
            spec.map_type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            entries=spec.entries,
        )
        return None

    def _add_ring(self, spec: MapSpec) -> None:
        from batchprobe.programs.ring_buffer import RingBuffer  # noqa: PLC0415  (few have one)

        ring = self.rings[spec.name] = RingBuffer(spec)
        self._arrays.append(ring)
        self._fds[spec.name] = ring.fd

    def _check_name(self, spec: MapSpec) -> None:
        if spec.name in self._fds or len(spec.name) > _MAX_NAME:
            raise ValueError(f"{spec.name!r} names another map, or has over {_MAX_NAME} characters")

    def add_array(self, spec: MapSpec) -> Cells:
        """One more mapped array for the programs, closed with the others."""
        self._check_name(spec)
        array = Cells(spec)
        self._arrays.append(array)
        self._fds[spec.name] = array.fd
        return array

    def items(self, name: str) -> dict[int, int]:
        """All elements of a hash map from u64 to u64; two system calls for each."""
        found = bpf.map_items(self._fds[name], CELL_SIZE, CELL_SIZE)
        return {struct.unpack("=Q", key)[0]: struct.unpack("=Q", value)[0] for key, value in found}

    def raw_items(self, name: str, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
        """All elements of any hash map, as bytes."""
        return bpf.map_items(self._fds[name], key_size, value_size)

    def set(self, name: str, key: int, value: int) -> None:
        """Set an element of a hash map from u64 to u64."""
        packed = struct.pack("=Q", key), struct.pack("=Q", value)
        bpf.map_update(self._fds[name], *packed)

    def set_program(self, name: str, at: int, fd: int) -> None:
        """Put a program into a map of `MapSpec.programs`. Raises KernelError: EINVAL if the one
        that calls it has another type, attach type or means of execution.
        """
        bpf.map_update(self._fds[name], struct.pack("=I", at), struct.pack("=I", fd))

    # -- programs ----------------------------------------------------------------------------

    def load(self, program: Program, *, attach_type: int = 0, epoch: int = 0) -> int:
        """Load a program on these maps; returns its descriptor. Links have an epoch.

        Raises VerifierError if the kernel refuses it, ValueError if it needs an unlisted map.
        """
        registers = arch.current().registers
        values = {
            **self._fds,
            **self._constants,
            BUCKET_SHIFT: HASH_BITS - self._bucket_bits,
            EPOCH: epoch,
            INSTRUCTION_POINTER_AT: registers.instruction_pointer,
            STACK_POINTER_AT: registers.stack_pointer,
            # An architecture with fewer has the last one several times; no plan asks for that.
            **{
                name: registers.arguments[min(number, len(registers.arguments) - 1)]
                for number, name in enumerate(ARGUMENTS_AT)
            },
            RESULT_AT: registers.result,
            MAPS_ID: self._id,
            STACK_MOVES: self.stack_moves,
            SESSION_IS_RETURN: self.session_is_return,
        }
        if missing := {operand for _, operand in program.operands} - values.keys():
            raise ValueError(f"the C declares {', '.join(missing)}, and no maps() lists it")
        fd = program.load(values, attach_type=attach_type)
        self._programs.append(fd)
        return fd

    def unload(self, fd: int) -> None:
        """Close a program that no kernel object runs any more."""
        self._programs.remove(fd)
        fds.close(fd)

    def map_ips(self, *pairs: tuple[int, int]) -> None:
        """From now on a hit with this instruction pointer belongs to this slot, for each pair."""
        cells, bits = self._buckets.cells, self._bucket_bits
        for ip, slot in pairs:
            at = 2 * bucket_of(ip, bits)
            if cells[at] in (0, ip):
                # In this order: a program that finds the instruction pointer takes the slot.
                cells[at + 1] = slot
                cells[at] = ip
            else:
                self.set("slots", ip, slot)

    # -- gates -------------------------------------------------------------------------------

    def open_gates(self, slots: Iterable[int]) -> None:
        """Count hits of these slots, from the next map lookup of a program on."""
        for slot in slots:
            self._gates.cells[slot] = self.layout.stride

    def close_gates(self, slots: Iterable[int]) -> None:
        """The top half of a detach: count no new hit, from the next map lookup on."""
        for slot in slots:
            self._gates.cells[slot] = 0

    def close_all_gates(self) -> None:
        """Close the gates of all slots with one copy."""
        first = NO_SLOT + 1
        size = self._gates.cells[first:].nbytes
        self._gates.cells[first:] = memoryview(bytes(size)).cast("Q")

    # -- hits --------------------------------------------------------------------------------

    def hits_of(self, slot: int) -> int:
        """Hits of one slot so far, on all CPUs."""
        return self._sum(slot) + self._claimed_hits().get(slot, 0)

    def hits(self) -> Hits:
        """Hits of every slot so far."""
        copy = memoryview(self._hits.cells.tobytes()).cast("Q")
        return Hits(copy, self.layout.cpus, self._claimed_hits())

    def final_hits(self, slots: Sequence[int]) -> Hits:
        """Hits of these slots, which are all that will be read from the result."""
        if len(slots) * _FEW > self.layout.slots:
            return self.hits()
        claimed = self._claimed_hits()
        return Hits.of({slot: self._sum(slot) + claimed.get(slot, 0) for slot in slots})

    def _sum(self, slot: int) -> int:
        return sum(self._hits.cells[slot :: self.layout.stride][: self.layout.cpus])

    def runs(self) -> int:
        """How often the programs ran, for whatever slot or none."""
        return sum(self._hits.cells) + sum(self._unclaimed().values())

    # -- hits of functions whose module was loaded after the attach ----------------------------

    def unclaimed_hits(self) -> dict[int, int]:
        """Hits by instruction pointer, where no slot claimed it yet."""
        return {ip: hits for ip, hits in self._unclaimed().items() if ip not in self._claimed}

    def claim(self, ip: int, slot: int) -> None:
        """Give an instruction pointer to a slot: earlier hits count too.

        Its earlier hits stay where they are, so that no hit is lost between two maps.
        """
        self.map_ips((ip, slot))
        self._claimed[ip] = slot

    def _unclaimed(self) -> dict[int, int]:
        return self.items("unclaimed")

    def claimed_total(self) -> int:
        """Hits that were counted by instruction pointer, and ran no action, until a slot claimed
        them.
        """
        return sum(self._claimed_hits().values())

    def _claimed_hits(self) -> dict[int, int]:
        hits: dict[int, int] = {}
        if self._claimed:
            for ip, count in self._unclaimed().items():
                if ip in self._claimed:
                    slot = self._claimed[ip]
                    hits[slot] = hits.get(slot, 0) + count
        return hits

    def close(self) -> None:
        """Free maps and programs; the kernel objects that use them must be gone."""
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
            self.rings.clear()
