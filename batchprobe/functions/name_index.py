"""Where a function of a given name is among the kernel's symbols: an index, made once a boot.

Cutting 120,000 names apart and looking at each takes longer than attaching 1,000 probes by a link.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, compress
from typing import Self
from zlib import crc32

__all__ = ["NameIndex"]


class NameIndex:
    """Functions by the hash of their name.

    It holds no names: who asks compares those at the places that it tells.
    """

    __slots__ = ("_count", "table")

    def __init__(self, table: array[int] | memoryview) -> None:
        self._count = len(table) // 3
        self.table = table
        """All of it; of 32-bit numbers, three a function: hashes in order, positions, offsets."""

    @classmethod
    def of(cls, names: Sequence[str], functions: bytes) -> Self:
        """Of those names that are a function's: 1 in `functions`."""
        positions = list(compress(range(len(names)), functions))
        hashes = [crc32(name.encode()) for name in compress(names, functions)]
        # Joined, each name has one newline before it.
        offsets = [0, *map(sum, enumerate(accumulate(map(len, names)), 1))]
        from array import array  # noqa: PLC0415  (once a boot; it imports `collections`)

        # Of one name, in order of position.
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        places = [positions[at] for at in order]
        return cls(
            array("I", [*(hashes[at] for at in order), *places, *(offsets[p] for p in places)])
        )

    def places(self, name: bytes) -> list[tuple[int, int]]:
        """Where a function of this name may be: its position, and that of the newline before its
        name where all names are joined by newlines, with one in front.
        """
        wanted = crc32(name)
        table, count = self.table, self._count
        at = bisect_left(table, wanted, 0, count)
        found = []
        while at < count and table[at] == wanted:
            found.append((table[count + at], table[2 * count + at]))
            at += 1
        return found
