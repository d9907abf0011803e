# SPDX-License-Identifier: Apache-2.0
"""The kernel's code symbols in columns, searchable by name or address."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, compress
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["LANDMARKS", "CodeSymbols", "NameIndex", "parse_addresses"]

LANDMARKS = ("_text", "_stext", "__per_cpu_offset", "current_kprobe", "register_fprobe_ips")
"""Core kernel symbols whose address, or presence, decides how probes are attached."""


class NameIndex:
    """Maps the CRC-32 of a function's name to the positions of functions that may have this name.

    Built once per boot. Without it, each start would split and compare 120,000 names, which takes
    longer than attaching 1,000 probes by a kprobe_multi link. The index holds no names; the caller
    compares those at the positions it returns.
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


class CodeSymbols:
    """Symbols in the kernel's code, sorted by address, then in the kernel's order.

    Symbols that are not functions (section borders, padding, cold parts) are included, because they
    end the function before them.
    """

    def __init__(
        self,
        *,
        addresses: array[int] | memoryview,
        lines: bytes | memoryview,
        functions: bytes | memoryview,
        index: NameIndex,
        runs: tuple[tuple[int, str], ...],
        init: range,
        landmarks: dict[str, int],
    ) -> None:
        self.addresses = addresses
        self.lines = lines
        """The names, with a newline before each and after the last.

        Padding and cold parts have empty names: since Linux 6.2 they are half of all symbols.
        """
        self.functions = functions
        """1 for each symbol that is a function, 0 for others."""
        self.index = index
        """The functions by name."""
        self.runs = runs
        """(first position, module) of each run of symbols of one module; "" is the core kernel."""
        self._starts = [start for start, _ in runs]
        self._ends = [*self._starts[1:], len(addresses)]
        self.init = init
        """Address range of the core kernel's `__init` code, which is freed after boot."""
        self.landmarks = landmarks
        """Addresses of the LANDMARKS that exist."""

    @cached_property
    def text(self) -> str:
        """`lines` as text."""
        return str(self.lines, "ascii")

    @cached_property
    def names(self) -> list[str]:
        """The name of each symbol."""
        return self.text[1:-1].split("\n")

    def module_of(self, position: int) -> str:
        """Return the module of a symbol; empty for the core kernel."""
        return self.run_of(position)[0]

    def run_of(self, position: int) -> tuple[str, int]:
        """Return the module of a symbol and the position after its run."""
        run = bisect_right(self._starts, position) - 1
        return self.runs[run][1], self._ends[run]

    def functions_named(self, name: str) -> list[int]:
        """Return the positions of all functions of exactly this name, in order."""
        wanted = name.encode()
        line = b"\n%b\n" % wanted
        lines, size = self.lines, len(line)
        return [
            position
            for position, offset in self.index.candidates(wanted)
            if lines[offset : offset + size] == line
        ]

    def positions_containing(self, part: str) -> Iterator[int]:
        """Yield the positions of symbols whose name contains `part`.

        A newline at either end of `part` anchors it there. The search runs on the joined names, so
        it neither splits them nor looks at each.
        """
        text = self.text
        inside = part.startswith("\n")
        last = -1
        names_begun = searched = 0
        at = text.find(part)
        while at >= 0:
            names_begun += text.count("\n", searched, at + inside)
            searched = at + inside
            if names_begun - 1 != last:
                last = names_begun - 1
                yield last
            at = text.find(part, at + 1)


def parse_addresses(addresses: list[str]) -> array[int]:
    """Parse hexadecimal addresses; fastest if all have 8 or all have 16 digits."""
    width = max(map(len, addresses))
    if width != min(map(len, addresses)) or width not in (8, 16):
        return array("Q", [int(address, 16) for address in addresses])
    numbers = array("I" if width == 8 else "Q", bytes.fromhex("".join(addresses)))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers if width == 16 else array("Q", numbers)
