# SPDX-License-Identifier: Apache-2.0
"""FunctionTable: all functions of the running kernel, and which of them can be probed."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from itertools import compress
from os import PathLike

from batchprobe.errors import UnsupportedError
from batchprobe.functions.cache import SymbolCache
from batchprobe.functions.symbols import LANDMARKS, CodeSymbols, parse_addresses
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys.files import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from batchprobe.kernel.module_files import InstalledModules

__all__ = ["Function", "FunctionTable"]

# Assumed size of the last function of a module, which no symbol follows; few functions are larger.
_LAST_FUNCTION_SIZE = 0x4000


class Function:
    """A function of the running kernel.

    `module` is empty for the core kernel. `size` is the distance to the next symbol in bytes,
    including padding; 0 if no symbol follows.
    """

    __slots__ = ("address", "module", "name", "size")

    def __init__(self, name: str, module: str, address: int, size: int) -> None:
        self.name = name
        self.module = module
        self.address = address
        self.size = size

    def _key(self) -> tuple[object, ...]:
        return self.address, self.name, self.module, self.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Function({self.name!r}, {self.module!r}, {self.address:#x}, {self.size:#x})"


class FunctionTable:
    """A snapshot of the kernel's functions; it does not follow modules that come or go later.

    A function is a symbol of type t, T, w or W, except for padding (`__pfx_*`, `__cfi_*`), cold
    parts (`*.cold`), mapping symbols, BPF programs and trampolines. Several may share a name.
    """

    def __init__(
        self,
        symbols: CodeSymbols,
        *,
        kallsyms: Callable[[], bytes | None],
        traceable: Callable[[], bytes | None],
        blacklist: Callable[[], bytes | None],
        modules: bytes,
        installed: Callable[[], InstalledModules | None],
    ) -> None:
        """Use `from_kernel` or `from_text`. Each callable is called at most once, when needed."""
        self._symbols = symbols
        self._read_installed = installed
        self._read_kallsyms = kallsyms
        self._read_traceable = traceable
        self._read_blacklist = blacklist
        loaded = {line.split(None, 1)[0].decode() for line in modules.splitlines() if line.strip()}
        self.modules = frozenset(loaded.union(module for _, module in symbols.runs) - {""})
        """Names of the loaded modules, with `_` for `-`."""

    @classmethod
    def from_text(
        cls,
        kallsyms: bytes,
        *,
        traceable: bytes | None = None,
        blacklist: bytes | None = None,
        modules: bytes = b"",
        installed: InstalledModules | None = None,
    ) -> Self:
        """Build a table from the texts of the kernel's files; None for files that are unreadable.

        `traceable` is the text of available_filter_functions, `blacklist` that of
        kprobes/blacklist, `modules` that of /proc/modules. `installed` are the modules on disk.
        Raises UnsupportedError if the addresses are hidden or there are no functions.
        """
        return cls(
            _parse_kallsyms(kallsyms),
            kallsyms=lambda: kallsyms,
            traceable=lambda: traceable,
            blacklist=lambda: _ranges(blacklist),
            modules=modules,
            installed=lambda: installed,
        )

    @classmethod
    def from_kernel(
        cls,
        tracefs: str | PathLike[str] | None = None,
        *,
        proc: str | PathLike[str] = "/proc",
        debugfs: str | PathLike[str] = "/sys/kernel/debug",
        cache: SymbolCache | None = None,
    ) -> Self:
        """Build a table of the running kernel; `tracefs` is the mount point of tracefs, if another
        one is meant. Without tracefs nothing is known about what ftrace can trace.

        With a `cache`, lists the kernel is slow to produce are taken from it.
        Raises UnsupportedError if this user may not see addresses or there are no functions.
        """
        # Before kallsyms: a module loaded in between is then known by its symbols.
        modules = _read(f"{proc}/modules")

        def symbols() -> CodeSymbols:
            kallsyms = _read(f"{proc}/kallsyms")
            if kallsyms is None:
                raise UnsupportedError(
                    f"{proc}/kallsyms cannot be read",
                    remedy="mount /proc; the kernel needs CONFIG_KALLSYMS=y",
                )
            return _parse_kallsyms(kallsyms)

        def traceable() -> bytes | None:
            # The list with addresses exists since Linux 6.5.
            found = Tracefs.if_usable() if tracefs is None else Tracefs(os.fspath(tracefs))
            if found is None:
                return None
            name = f"{found.root}/available_filter_functions"
            return _read(f"{name}_addrs") or _read(name)

        def blacklist() -> bytes | None:
            return _ranges(_read(f"{debugfs}/kprobes/blacklist"))

        def cached(name: str, read: Callable[[], bytes | None]) -> Callable[[], bytes | None]:
            return read if cache is None else lambda: cache.text(name, read)

        return cls(
            symbols() if cache is None else cache.symbols(symbols),
            kallsyms=lambda: _read(f"{proc}/kallsyms"),
            traceable=cached("traceable", traceable),
            blacklist=cached("blacklist", blacklist),
            modules=modules or b"",
            installed=_installed,
        )

    def find(self, names: Iterable[str]) -> dict[str, list[Function]]:
        """Return the functions of exactly these names; functions of one name by address."""
        functions_named = self._symbols.functions_named
        return {
            name: [self._function(position, name) for position in positions]
            for name in names
            if (positions := functions_named(name))
        }

    def clones(self, name: str) -> list[Function]:
        """Return the compiler's clones of `name`: .isra.0, .constprop.0, .part.0, .llvm.1 etc."""
        return [self._function(position) for position in self._clones.get(name, ())]

    def named(self, name: str) -> tuple[Function, ...]:
        """Return the functions of this name; if there are none, its clones."""
        return tuple(self.find([name]).get(name) or self.clones(name))

    def count(self, name: str, module: str) -> int:
        """How many functions of a module (empty: of the kernel) have this name."""
        module_of = self._symbols.module_of
        return sum(module_of(at) == module for at in self._symbols.functions_named(name))

    def matching(
        self,
        match: Callable[[str], object],
        modules: Collection[str] | None = None,
        *,
        containing: str = "",
    ) -> list[Function]:
        """Return the functions, by address, for whose name `match` returns a true value.

        `modules` restricts the search to some modules (`""` is the core kernel). `containing` is
        text that every matching name contains, and makes the search faster; a newline in it anchors
        it at the start or end of the name.
        """
        if containing:
            names = self._symbols.names
            candidates = self._symbols.positions_containing(containing)
            positions = (position for position in candidates if match(names[position]))
            functions = self._functions(positions)
        else:
            functions = [self._function(position) for position in self._positions(match)]
        if modules is not None:
            return [function for function in functions if function.module in modules]
        return functions

    def function_at(self, address: int) -> tuple[Function, int] | None:
        """Return the function that contains `address`, and the offset from its start in bytes."""
        addresses = self._symbols.addresses
        before = bisect_right(addresses, address)
        if not before:
            return None
        for position in filter(self._is_function, self._symbols_at(addresses[before - 1])):
            function = self._function(position)
            offset = address - function.address
            return (function, offset) if offset < (function.size or _LAST_FUNCTION_SIZE) else None
        return None

    def is_traceable(self, function: Function) -> bool | None:
        """Report whether ftrace can trace `function`; None if unknown.

        Before Linux 6.5 the list has no addresses. A function is then reported as traceable if any
        function of its name and module is listed, or any other name of its address.
        """
        if self._traceable is None:
            return None
        if not isinstance(self._traceable, frozenset):
            # Like ftrace_location(): ftrace patches no address in a function but its entry.
            at = bisect_left(self._traceable, function.address)
            end = function.address + (function.size or _LAST_FUNCTION_SIZE)
            return at < len(self._traceable) and self._traceable[at] < end
        if _traceable_key(function.name, function.module) in self._traceable:
            return True
        symbols = self._symbols
        return any(
            _traceable_key(symbols.names[i], symbols.module_of(i)) in self._traceable
            for i in self._symbols_at(function.address)
        )

    def is_blacklisted(self, address: int) -> bool | None:
        """Report whether the kernel blacklists `address` for kprobes; None if unknown."""
        return None if self._blacklist is None else address in self._blacklist

    def is_init(self, address: int) -> bool:
        """Report whether `address` is in the core kernel's `__init` code, freed after boot."""
        return address in self._symbols.init

    def symbol_address(self, name: str) -> int | None:
        """Return the address of a core kernel symbol, code or data; None if there is none."""
        if name in LANDMARKS:
            return self._symbols.landmarks.get(name)
        import re  # noqa: PLC0415  (few symbols need it)

        found = re.search(rf"^(\w+) \w {re.escape(name)}$", self.kallsyms, re.MULTILINE)
        return int(found[1], 16) if found else None

    def is_tracepoint(self, name: str) -> bool:
        """Report whether there is a tracepoint of this name in what is loaded.

        Each has a function that calls its probes (DECLARE_TRACE(), include/linux/tracepoint.h,
        Linux 5.10).
        """
        return bool(self.find([f"__traceiter_{name}"]))

    def syscalls(self, prefix: str) -> list[Function]:
        """Return the core kernel's functions whose name starts with `prefix`."""
        return self.matching(lambda name: name.startswith(prefix), {""}, containing=f"\n{prefix}")

    @cached_property
    def installed(self) -> InstalledModules | None:
        """The modules that can be loaded and those that are built in; None if unknown."""
        return self._read_installed()

    def similar(self, name: str) -> set[str]:
        """Return function names that start with the first half of `name` or end with the second."""
        head, tail = name[: len(name) // 2], name[len(name) // 2 :]
        if len(name) < 4:
            return set()
        search, names = self._symbols.positions_containing, self._symbols.names
        positions = {*search(f"\n{head}"), *search(f"{tail}\n")}
        return {names[position] for position in positions if self._is_function(position)}

    def _positions(self, match: Callable[[str], object]) -> Iterable[int]:
        names = self._symbols.names
        return filter(self._is_function, compress(range(len(names)), map(match, names)))

    def _functions(self, positions: Iterable[int]) -> list[Function]:
        return [self._function(p) for p in positions if self._is_function(p)]

    def _is_function(self, position: int) -> bool:
        return self._symbols.functions[position] == 1

    def _symbols_at(self, address: int) -> range:
        addresses = self._symbols.addresses
        return range(bisect_left(addresses, address), bisect_right(addresses, address))

    def _function(self, position: int, name: str = "") -> Function:
        symbols = self._symbols
        addresses = symbols.addresses
        start = addresses[position]
        module, end = symbols.run_of(position)
        following = position + 1
        while following < end and addresses[following] == start:
            following += 1
        size = addresses[following] - start if following < end else 0
        return Function(name or symbols.names[position], module, start, size)

    @cached_property
    def kallsyms(self) -> str:
        """The text of /proc/kallsyms, read again: the table has only functions."""
        return _text(self._read_kallsyms() or b"")

    @cached_property
    def _clones(self) -> dict[str, list[int]]:
        """By the name before the compiler's suffixes: the positions of functions that have some."""
        positions: dict[str, list[int]] = {}
        for position, name in enumerate(self._symbols.names):
            dot = name.find(".", 1)
            if dot > 0 and self._is_function(position):
                positions.setdefault(name[:dot], []).append(position)
        return positions

    @cached_property
    def _traceable(self) -> array[int] | frozenset[str] | None:
        text = self._read_traceable()
        if not text:
            # Empty while ftrace is disabled, which does not mean that nothing is traceable.
            return None
        import re  # noqa: PLC0415  (for patterns, and names that the kernel refused)

        lines = _text(text)
        if re.match(r"[0-9a-f]+ \w", lines):
            found = re.findall(r"^([0-9a-f]+) ", lines, re.MULTILINE)
            return array("Q", sorted(parse_addresses(found)))
        return frozenset(lines.splitlines())

    @cached_property
    def _blacklist(self) -> _Ranges | None:
        ranges = self._read_blacklist()
        return None if ranges is None else _Ranges(ranges)


class _Ranges:
    """Half-open address ranges; `in` tests whether any of them contains an address."""

    def __init__(self, packed: bytes) -> None:
        # A list, not a memoryview: bisecting a view creates an int at every step.
        numbers = memoryview(packed).cast("Q").tolist()
        self._starts, self._ends = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]

    def __contains__(self, address: int) -> bool:
        before = bisect_right(self._starts, address)
        return before > 0 and address < self._ends[before - 1]


def _ranges(blacklist: bytes | None) -> bytes | None:
    """Parse kprobes/blacklist into disjoint ranges: an array of all starts, then all ends."""
    if blacklist is None:
        return None
    listed = (line.partition(b"\t")[0].partition(b"-") for line in blacklist.splitlines())
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted((int(s, 16), int(e, 16)) for s, dash, e in listed if dash):
        if ends and start <= ends[-1]:
            ends[-1] = max(end, ends[-1])
        elif start < end:
            starts.append(start)
            ends.append(end)
    return array("Q", [*starts, *ends]).tobytes()


def _installed() -> InstalledModules | None:
    from batchprobe.kernel.module_files import installed_modules  # noqa: PLC0415  (few lists ask)

    return installed_modules()


def _parse_kallsyms(kallsyms: bytes) -> CodeSymbols:
    # Needed once per boot; compiling its regexes takes 1 ms.
    from batchprobe.functions.kallsyms import parse_kallsyms  # noqa: PLC0415

    return parse_kallsyms(_text(kallsyms))


def _read(path: str) -> bytes | None:
    try:
        return read_bytes(path)
    except OSError:
        return None


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")


def _traceable_key(name: str, module: str) -> str:
    """The line of available_filter_functions for a function."""
    return f"{name} [{module}]" if module else name
