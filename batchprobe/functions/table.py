"""FunctionTable: the functions of the running kernel, where they are and which can be probed."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from itertools import compress
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from batchprobe.errors import UnsupportedError
from batchprobe.functions.symbols import LANDMARKS
from batchprobe.sys.files import read_bytes

if TYPE_CHECKING:
    from batchprobe.functions.symbols import CodeSymbols

    class Memory(Protocol):
        """What was read earlier; a function is given to read it where it was not."""

        def symbols(self, read: Callable[[], CodeSymbols]) -> CodeSymbols:
            """What parse_kallsyms() makes of /proc/kallsyms."""
            ...

        def text(self, name: str, read: Callable[[], bytes | None]) -> bytes | None:
            """A list of the kernel's, by a name of its own."""
            ...


__all__ = ["Function", "FunctionTable"]

# Nothing follows the last function of a module: how far from its start an address still counts as
# inside. Hardly a function is larger.
_LAST_REACH = 0x4000


class Function(NamedTuple):
    """A function of the running kernel. (A tuple is made fastest, and there may be 60,000.)"""

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
        symbols: CodeSymbols,
        *,
        kallsyms: Callable[[], bytes | None],
        traceable: Callable[[], bytes | None],
        blacklist: Callable[[], bytes | None],
        modules: bytes,
    ) -> None:
        """Use `from_kernel` or `from_text`; the callables are asked once, when first needed."""
        self._symbols = symbols
        self._read_kallsyms = kallsyms
        self._read_traceable = traceable
        self._read_blacklist = blacklist
        loaded = {line.split(None, 1)[0].decode() for line in modules.splitlines() if line.strip()}
        self.modules = frozenset(loaded.union(module for _, module in symbols.runs) - {""})
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
        from batchprobe.functions.kallsyms import parse_kallsyms  # noqa: PLC0415  (likewise)

        return cls(
            parse_kallsyms(_text(kallsyms)),
            kallsyms=lambda: kallsyms,
            traceable=lambda: traceable,
            blacklist=lambda: _ranges(blacklist),
            modules=modules,
        )

    @classmethod
    def from_kernel(
        cls,
        tracefs: str | PathLike[str],
        *,
        proc: str | PathLike[str] = "/proc",
        debugfs: str | PathLike[str] = "/sys/kernel/debug",
        memory: Memory | None = None,
    ) -> Self:
        """A table of the running kernel; `tracefs` is where that is mounted.

        What takes the kernel long to list is taken from `memory`, where that has it.
        Raises UnsupportedError if this user may not see addresses or there are no symbols.
        """
        # Modules first: one loaded in between is then known by its symbols.
        modules = _read(f"{proc}/modules")

        def symbols() -> CodeSymbols:
            kallsyms = _read(f"{proc}/kallsyms")
            if kallsyms is None:
                raise UnsupportedError(
                    f"{proc}/kallsyms cannot be read",
                    remedy="mount /proc; the kernel needs CONFIG_KALLSYMS=y",
                )
            # Once a boot, and its expressions take long to compile.
            from batchprobe.functions.kallsyms import parse_kallsyms  # noqa: PLC0415

            return parse_kallsyms(_text(kallsyms))

        def traceable() -> bytes | None:
            # With addresses since Linux 6.5.
            name = "available_filter_functions"
            return _read(f"{tracefs}/{name}_addrs") or _read(f"{tracefs}/{name}")

        def blacklist() -> bytes | None:
            return _ranges(_read(f"{debugfs}/kprobes/blacklist"))

        def kept(what: str, look: Callable[[], bytes | None]) -> Callable[[], bytes | None]:
            return look if memory is None else lambda: memory.text(what, look)

        return cls(
            symbols() if memory is None else memory.symbols(symbols),
            kallsyms=lambda: _read(f"{proc}/kallsyms"),
            traceable=kept("traceable", traceable),
            blacklist=kept("blacklist", blacklist),
            modules=modules or b"",
        )

    def find(self, names: Iterable[str]) -> dict[str, list[Function]]:
        """The functions of exactly these names, namesakes by address."""
        functions_named = self._symbols.functions_named
        return {
            name: [self._function(position, name) for position in positions]
            for name in names
            if (positions := functions_named(name))
        }

    def clones(self, name: str) -> list[Function]:
        """What the compiler made of `name`: its `.isra.0`, `.constprop.0`, `.part.0`, `.llvm.1`."""
        if not name or "." in name[1:]:
            return []
        return self._functions(self._symbols.positions_of(f"\n{name}."))

    def named(self, name: str) -> tuple[Function, ...]:
        """The functions of this name, or its clones if there are none."""
        return tuple(self.find([name]).get(name) or self.clones(name))

    def matching(
        self,
        match: Callable[[str], object],
        modules: Collection[str] | None = None,
        *,
        part: str = "",
    ) -> list[Function]:
        """The functions, by address, whose name `match` finds true; in these modules only.

        Every such name has `part`, in which a newline is the border of a name.
        """
        if part:
            names = self._symbols.names
            positions = (p for p in self._symbols.positions_of(part) if match(names[p]))
            functions = self._functions(positions)
        else:
            functions = [self._function(position) for position in self._positions(match)]
        if modules is not None:
            return [function for function in functions if function.module in modules]
        return functions

    def function_at(self, address: int) -> tuple[Function, int] | None:
        """The function an address lies in, and how many bytes behind its start."""
        addresses = self._symbols.addresses
        before = bisect_right(addresses, address)
        if not before:
            return None
        for position in filter(self._is_function, self._symbols_at(addresses[before - 1])):
            function = self._function(position)
            offset = address - function.address
            return (function, offset) if offset < (function.size or _LAST_REACH) else None
        return None

    def is_traceable(self, function: Function) -> bool | None:
        """Whether ftrace lists it; None: unknown.

        Before Linux 6.5 the list has names and no addresses, so one traceable namesake speaks for
        all, and any name of the same address for it.
        """
        if self._traceable is None:
            return None
        if not isinstance(self._traceable, frozenset):
            # As ftrace_location() does: the one place in it that ftrace may patch is its entry.
            at = bisect_left(self._traceable, function.address)
            end = function.address + (function.size or _LAST_REACH)
            return at < len(self._traceable) and self._traceable[at] < end
        if _traceable_key(function.name, function.module) in self._traceable:
            return True
        symbols = self._symbols
        return any(
            _traceable_key(symbols.names[i], symbols.module_of(i)) in self._traceable
            for i in self._symbols_at(function.address)
        )

    def is_blacklisted(self, address: int) -> bool | None:
        """Whether the kernel forbids kprobes at this address; None if its list is not readable."""
        return None if self._blacklist is None else address in self._blacklist

    def is_init(self, address: int) -> bool:
        """Whether the address lies in what the core kernel frees after boot (`__init`)."""
        return address in self._symbols.init

    def symbol_address(self, name: str) -> int | None:
        """The address of a core kernel symbol of any type, data included; None if there is none."""
        if name in LANDMARKS:
            return self._symbols.landmarks.get(name)
        import re  # noqa: PLC0415  (no start needs it)

        found = re.search(rf"^(\w+) \w {re.escape(name)}$", self._kallsyms, re.MULTILINE)
        return int(found[1], 16) if found else None

    def has_symbol(self, name: str) -> bool:
        """Whether there is any symbol of this name, data and padding included."""
        return f" {name}\n" in self._kallsyms or f" {name}\t" in self._kallsyms

    def similar(self, name: str) -> set[str]:
        """The functions' names that begin with the first half of `name` or end with the second."""
        head, tail = name[: len(name) // 2], name[len(name) // 2 :]
        if len(name) < 4:
            return set()
        symbols = self._symbols
        positions = {*symbols.positions_of(f"\n{head}"), *symbols.positions_of(f"{tail}\n")}
        return {symbols.names[position] for position in positions if self._is_function(position)}

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
    def _kallsyms(self) -> str:
        return _text(self._read_kallsyms() or b"")

    @cached_property
    def _traceable(self) -> array[int] | frozenset[str] | None:
        text = self._read_traceable()
        if not text:
            # An empty list is that of a kernel whose ftrace is off: it says nothing.
            return None
        import re  # noqa: PLC0415  (only patterns ask)

        from batchprobe.functions.kallsyms import numbers_of  # noqa: PLC0415  (likewise)

        lines = _text(text)
        if re.match(r"[0-9a-f]+ \w", lines):
            found = re.findall(r"^([0-9a-f]+) ", lines, re.MULTILINE)
            from array import array  # noqa: PLC0415  (it imports `collections`)

            return array("Q", sorted(numbers_of(found)))
        return frozenset(lines.splitlines())

    @cached_property
    def _blacklist(self) -> _Ranges | None:
        ranges = self._read_blacklist()
        return None if ranges is None else _Ranges(ranges)


class _Ranges:
    """Ranges of addresses, each without its end; `in` says whether one holds an address."""

    def __init__(self, packed: bytes) -> None:
        # A list, which is searched for each function: it has its numbers ready, a view makes them.
        numbers = memoryview(packed).cast("Q").tolist()
        self._starts, self._ends = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]

    def __contains__(self, address: int) -> bool:
        before = bisect_right(self._starts, address)
        return before > 0 and address < self._ends[before - 1]


def _ranges(blacklist: bytes | None) -> bytes | None:
    """The ranges of kprobes/blacklist, one behind the other: all starts, then all ends."""
    if blacklist is None:
        return None
    # Not by an expression, which takes longer to compile.
    listed = (line.partition(b"\t")[0].partition(b"-") for line in blacklist.splitlines())
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted((int(s, 16), int(e, 16)) for s, dash, e in listed if dash):
        if ends and start <= ends[-1]:
            ends[-1] = max(end, ends[-1])
        elif start < end:
            starts.append(start)
            ends.append(end)
    from array import array  # noqa: PLC0415  (likewise)

    return array("Q", [*starts, *ends]).tobytes()


def _read(path: str) -> bytes | None:
    try:
        return read_bytes(path)
    except OSError:
        return None


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")


def _traceable_key(name: str, module: str) -> str:
    """A function as a line of available_filter_functions."""
    return f"{name} [{module}]" if module else name
