# SPDX-License-Identifier: Apache-2.0
"""An index that finds functions by the hash of their name, built once per boot.

Without it, each start would split and compare 120,000 names, which takes longer than attaching
1,000 probes by a kprobe_multi link.
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
    """Maps the CRC-32 of a function's name to the positions of functions that may have this name.

    The index holds no names; the caller compares those at the positions it returns.
    """

    __slots__ = ("_count", "table")

    def __init__(self, table: array[int] | memoryview) -> None:
        self._count = len(table) // 3
        self.table = table
        """Three columns of 32-bit numbers: sorted hashes, symbol positions, text offsets."""

    @classmethod
    def build(cls, names: Sequence[str], functions: bytes) -> Self:
        """Index those `names` for which `functions` is 1."""
        positions = list(compress(range(len(names)), functions))
        hashes = [crc32(name.encode()) for name in compress(names, functions)]
        # In the joined text, each name has one newline before it.
        offsets = [0, *map(sum, enumerate(accumulate(map(len, names)), 1))]
        # A stable sort: functions of the same name stay in order of position.
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        sorted_positions = [positions[at] for at in order]
        columns = [
            *(hashes[at] for at in order),
            *sorted_positions,
            *(offsets[position] for position in sorted_positions),
        ]
        return cls(array("I", columns))

    def candidates(self, name: bytes) -> list[tuple[int, int]]:
        """Return (position, offset) of each function that may have this name, by position.

        The offset is that of the newline before its name in the text of all names, which has one
        before each of them.
        """
        wanted = crc32(name)
        table, count = self.table, self._count
        at = bisect_left(table, wanted, 0, count)
        found = []
        while at < count and table[at] == wanted:
            found.append((table[count + at], table[2 * count + at]))
            at += 1
        return found
