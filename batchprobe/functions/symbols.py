"""The symbols of the running kernel's code, in columns: what is where, found by name or address."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchprobe.functions.name_index import NameIndex

__all__ = ["LANDMARKS", "CodeSymbols"]

LANDMARKS = ("_text", "_stext", "__per_cpu_offset", "current_kprobe", "register_fprobe_ips")
"""Core kernel symbols that probes need, or whose presence tells something."""


class CodeSymbols:
    """The symbols of code, sorted by address, then in the kernel's order.

    With them what is no function: section borders, padding, cold parts. They are where functions
    end.
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
        """The names, each with a newline before it, and one behind the last.

        Padding and cold parts have none here: since 6.2 they are half of all symbols.
        """
        self.functions = functions
        """For each symbol whether it is a function: 1 or 0."""
        self.index = index
        """Of the functions."""
        self.runs = runs
        """Where the symbols of a module (empty: the core kernel) begin, and of which."""
        self._starts = [start for start, _ in runs]
        self._ends = [*self._starts[1:], len(addresses)]
        self.init = init
        """The addresses of the core kernel's `__init` functions, whose memory was freed."""
        self.landmarks = landmarks
        """Addresses of those LANDMARKS that there are."""

    @cached_property
    def text(self) -> str:
        """The lines to be searched."""
        return str(self.lines, "ascii")

    @cached_property
    def names(self) -> list[str]:
        """The name of each symbol."""
        return self.text[1:-1].split("\n")

    def module_of(self, position: int) -> str:
        """The module of a symbol; empty for the core kernel."""
        return self.run_of(position)[0]

    def run_of(self, position: int) -> tuple[str, int]:
        """The module of a symbol, and where the symbols of another one begin behind it."""
        run = bisect_right(self._starts, position) - 1
        return self.runs[run][1], self._ends[run]

    def functions_named(self, name: str) -> list[int]:
        """The functions of exactly this name, in order."""
        wanted = name.encode()
        line = b"\n%b\n" % wanted
        lines, size = self.lines, len(line)
        return [
            position
            for position, offset in self.index.places(wanted)
            if lines[offset : offset + size] == line
        ]

    def positions_of(self, part: str) -> Iterator[int]:
        """The symbols whose name has this part, in which a newline is the border of a name.

        They are found without cutting the names apart, and without a look at the others.
        """
        text = self.text
        inside = part.startswith("\n")
        last = -1
        begun = seen = 0
        at = text.find(part)
        while at >= 0:
            begun += text.count("\n", seen, at + inside)
            seen = at + inside
            if begun - 1 != last:
                last = begun - 1
                yield last
            at = text.find(part, at + 1)
