# SPDX-License-Identifier: Apache-2.0
"""Maps of a kernel object without a kernel, for readers of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.functions.table import Function
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe


class FakeArray:
    """An array that is mapped into the process."""

    def __init__(self, cells: int) -> None:
        self.cells = memoryview(bytearray(8 * cells)).cast("Q")


class FakeRing:
    """A ring buffer with these records."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def take(self, most: int | None = None) -> tuple[bytes, list[int]]:
        """As RingBuffer.take()."""
        taken, self.records = self.records[:most], self.records[len(self.records[:most]) :]
        return b"".join(taken), [sum(map(len, taken[:index])) for index in range(len(taken))]


class FakeMaps:
    """As much of ProbeMaps as readers need."""

    def __init__(
        self,
        arrays: Mapping[str, int] | None = None,
        *,
        hashes: Mapping[str, Sequence[tuple[bytes, bytes]]] | None = None,
    ) -> None:
        """`arrays` are numbers of cells."""
        self.arrays = {name: FakeArray(cells) for name, cells in (arrays or {}).items()}
        self.hashes = {name: list(items) for name, items in (hashes or {}).items()}
        self.rings = {"ring": FakeRing()}

    def raw_items(self, name: str, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
        """The elements of a hash map, which have the sizes that the reader expects."""
        for key, value in self.hashes[name]:
            assert (len(key), len(value)) == (key_size, value_size)
        return self.hashes[name]


def target(name: str, *, module: str = "", offset: int = 0) -> Target:
    """A site in a function."""
    spec = ProbeSpec(name, Source("a list", 1), Kind.GLOB, name)
    function = Function(name, module, 0xFFFF_FFFF_8100_0000, 64)
    return Target(f"{module}:{name}" if module else name, spec, function, offset)


def probe(name: str, slot: int, **options: Any) -> Probe:
    """A probe that has its slot."""
    made = Probe(target(name, **options))
    made.slot = slot
    return made
