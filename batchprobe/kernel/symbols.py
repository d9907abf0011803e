"""FunctionTable: the functions of the running kernel, where they are and which can be probed."""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Self

from batchprobe.errors import UnsupportedError
from batchprobe.kernel.kallsyms import TEXT_TYPES, parse_kallsyms

__all__ = ["Function", "FunctionTable"]

# Symbols of code, but nothing one could call: entry padding, the cold half of a split function, the
# borders of sections.
_NOT_A_FUNCTION = re.compile(
    r"__pfx_|__cfi_|.+\.cold(?:\.|$)|_(?:s|e)?(?:init)?text$|__\w*text_(?:start|end|begin)$"
)
# Nothing follows the last function of a module: how far from its start an address still counts as
# inside. Hardly a function is larger.
_LAST_REACH = 0x4000


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the running kernel."""

    name: str
    module: str
    """Empty for the core kernel."""
    address: int
    size: int
    """Bytes up to the next symbol, padding included; 0 if no symbol follows."""


class FunctionTable:
    """The kernel's functions at one moment: modules that come or go later are not seen.

    A function is a symbol of type t, T, w or W that is not padding (`__pfx_*`, `__cfi_*`), a cold
    part (`*.cold`), a mapping symbol, a BPF program or a trampoline. A name may have many.
    """

    def __init__(
        self,
        kallsyms: bytes,
        *,
        traceable: Callable[[], bytes | None],
        blacklist: Callable[[], bytes | None],
        modules: bytes,
    ) -> None:
        """Use `from_kernel` or `from_text`; the callables are asked once, when first needed."""
        self._text = kallsyms.decode("ascii", "replace")
        self._read_traceable = traceable
        self._read_blacklist = blacklist
        self._symbols = parse_kallsyms(self._text)
        self._addresses = self._symbols.addresses
        self._names = self._symbols.names
        self._modules = self._symbols.modules
        loaded = {line.split(None, 1)[0].decode() for line in modules.splitlines() if line.strip()}
        self.modules = frozenset(loaded.union(self._modules) - {""})
        """The names of the modules loaded, with `_` for `-`."""

    @classmethod
    def from_text(
        cls,
        kallsyms: bytes,
        *,
        traceable: bytes | None = None,
        blacklist: bytes | None = None,
        modules: bytes = b"",
    ) -> Self:
        """A table from the texts the kernel gives; None for what is not known.

        `traceable` is that of available_filter_functions, `modules` that of /proc/modules.
        Raises UnsupportedError if the addresses are hidden or there are no symbols.
        """
        return cls(
            kallsyms, traceable=lambda: traceable, blacklist=lambda: blacklist, modules=modules
        )

    @classmethod
    def from_kernel(
        cls,
        tracefs: Path,
        *,
        proc: Path = Path("/proc"),
        debugfs: Path = Path("/sys/kernel/debug"),
    ) -> Self:
        """A table of the running kernel; `tracefs` is where that is mounted.

        Raises UnsupportedError if this user may not see addresses or there are no symbols.
        """
        # Modules first: one loaded in between is then known by its symbols.
        modules = _read(proc / "modules")
        kallsyms = _read(proc / "kallsyms")
        if kallsyms is None:
            raise UnsupportedError(
                f"{proc / 'kallsyms'} cannot be read",
                remedy="mount /proc; the kernel needs CONFIG_KALLSYMS=y",
            )
        return cls(
            kallsyms,
            traceable=lambda: _read(tracefs / "available_filter_functions"),
            blacklist=lambda: _read(debugfs / "kprobes" / "blacklist"),
            modules=modules or b"",
        )

    def find(self, names: Collection[str]) -> dict[str, list[Function]]:
        """The functions of exactly these names, namesakes by address; one pass for them all."""
        wanted = frozenset(names)
        found: dict[str, list[Function]] = {}
        if not wanted:
            return found
        for position in self._positions(wanted.__contains__):
            found.setdefault(self._names[position], []).append(self._function(position))
        return found

    def clones(self, name: str) -> list[Function]:
        """What the compiler made of `name`: its `.isra.0`, `.constprop.0`, `.part.0`, `.llvm.1`."""
        return [self._function(position) for position in self._clones.get(name, ())]

    def named(self, name: str) -> tuple[Function, ...]:
        """The functions of this name, or its clones if there are none."""
        return tuple(self.find([name]).get(name) or self.clones(name))

    def matching(
        self, match: Callable[[str], object], modules: Collection[str] | None = None
    ) -> list[Function]:
        """The functions, by address, whose name `match` finds true; in these modules only."""
        positions = self._positions(match)
        if modules is not None:
            positions = (i for i in positions if self._modules[i] in modules)
        return [self._function(position) for position in positions]

    def function_at(self, address: int) -> tuple[Function, int] | None:
        """The function an address lies in, and how many bytes behind its start."""
        before = bisect_right(self._addresses, self._hexadecimal(address))
        if not before:
            return None
        for position in self._symbols_at(self._addresses[before - 1]):
            if _NOT_A_FUNCTION.match(self._names[position]):
                continue
            function = self._function(position)
            offset = address - function.address
            return (function, offset) if offset < (function.size or _LAST_REACH) else None
        return None

    def is_traceable(self, function: Function) -> bool | None:
        """Whether ftrace lists it, under this name or another of the same address; None: unknown.

        The list has names and no addresses, so one traceable namesake speaks for all.
        """
        if self._traceable is None:
            return None
        if _traceable_key(function.name, function.module) in self._traceable:
            return True
        return any(
            _traceable_key(self._names[i], self._modules[i]) in self._traceable
            for i in self._symbols_at(self._hexadecimal(function.address))
        )

    def is_blacklisted(self, address: int) -> bool | None:
        """Whether the kernel forbids kprobes at this address; None if its list is not readable."""
        return None if self._blacklist is None else address in self._blacklist

    def is_init(self, address: int) -> bool:
        """Whether the address lies in what the core kernel frees after boot (`__init`)."""
        return address in self._symbols.init

    def symbol_address(self, name: str) -> int | None:
        """The address of a core kernel symbol of any type, data included; None if there is none."""
        end = self._text.find(f" {name}\n")
        start = self._text.rfind("\n", 0, max(end, 0)) + 1
        return int(self._text[start:end].split()[0], 16) if end >= 0 else None

    def has_symbol(self, name: str) -> bool:
        """Whether there is any symbol of this name, data and padding included."""
        return f" {name}\n" in self._text or f" {name}\t" in self._text

    def similar(self, name: str) -> set[str]:
        """The functions' names that begin with the first half of `name` or end with the second."""
        head, tail = re.escape(name[: len(name) // 2]), re.escape(name[len(name) // 2 :])
        names: set[str] = set()
        if len(name) < 4:
            return names
        # two searches, since `re` is quick where a pattern begins with fixed text
        for pattern in (f" {head}", f"{tail}(?=[\n\t])"):
            for text in self._symbols.text:
                for found in re.finditer(pattern, text):
                    line = text.rfind("\n", 0, found.start()) + 1
                    _, type_, other = text[line : text.find("\n", line)].split()[:3]
                    if type_ in TEXT_TYPES and not _NOT_A_FUNCTION.match(other):
                        names.add(other)
        return names

    def _positions(self, match: Callable[[str], object]) -> Iterable[int]:
        for position in compress(range(len(self._names)), map(match, self._names)):
            if not _NOT_A_FUNCTION.match(self._names[position]):
                yield position

    def _symbols_at(self, address: str) -> range:
        return range(bisect_left(self._addresses, address), bisect_right(self._addresses, address))

    def _hexadecimal(self, address: int) -> str:
        """An address as in the kernel's list, where all have one width: so they sort as text."""
        return format(address, f"0{len(self._addresses[0])}x")

    def _function(self, position: int) -> Function:
        start, module = self._addresses[position], self._modules[position]
        following = position + 1
        while following < len(self._addresses) and self._addresses[following] == start:
            following += 1
        size = 0
        if following < len(self._addresses) and self._modules[following] == module:
            size = int(self._addresses[following], 16) - int(start, 16)
        return Function(self._names[position], module, int(start, 16), size)

    @functools.cached_property
    def _clones(self) -> dict[str, list[int]]:
        clones: dict[str, list[int]] = {}
        for position, name in enumerate(self._names):
            if "." in name and not _NOT_A_FUNCTION.match(name):
                clones.setdefault(name[: name.find(".", 1)], []).append(position)
        return clones

    @functools.cached_property
    def _traceable(self) -> frozenset[str] | None:
        text = self._read_traceable()
        # An empty list is that of a kernel whose ftrace is off: it says nothing.
        return frozenset(text.decode("ascii", "replace").splitlines()) if text else None

    @functools.cached_property
    def _blacklist(self) -> _Ranges | None:
        text = self._read_blacklist()
        if text is None:
            return None
        ranges = re.findall(rb"^0x([0-9a-f]+)-0x([0-9a-f]+)\t", text, re.MULTILINE)
        return _Ranges((int(start, 16), int(end, 16)) for start, end in ranges)


class _Ranges:
    """Ranges of addresses, each without its end; `in` says whether one holds an address."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            elif start < end:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, address: int) -> bool:
        before = bisect_right(self._starts, address)
        return before > 0 and address < self._ends[before - 1]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _traceable_key(name: str, module: str) -> str:
    """A function as a line of available_filter_functions."""
    return f"{name} [{module}]" if module else name
