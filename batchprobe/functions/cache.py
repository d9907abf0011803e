"""What the kernel takes long to list, kept for the next start of this boot.

Reading the symbols takes most of a start: a tenth of a second on hardware, several under emulation.
They change only when modules come or go. The files are in /run, readable by this user alone, for
addresses are a secret, and gone with the boot: 5 MB for 115,000 symbols.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from os import PathLike

from batchprobe.functions.name_index import NameIndex
from batchprobe.functions.symbols import CodeSymbols
from batchprobe.sys import cache_file
from batchprobe.sys.files import exists, read_text

__all__ = ["BootMemory", "loaded"]

# To be raised when kallsyms.py finds something else in the same text.
_FORMAT = 6
# Of the first line, which is the size of the next.
_LONGEST_SIZE = 12


def loaded(proc: str | PathLike[str] = "/proc", sysfs: str | PathLike[str] = "/sys") -> str:
    """Says of this boot which modules are loaded: another text, other symbols.

    A module that was loaded anew may have its old name, size and address. Its folder in sysfs is
    another then, and kernfs gives inode numbers in turn (fs/kernfs/dir.c, Linux 3.14).
    """
    lines = [read_text(f"{proc}/sys/kernel/random/boot_id")]
    modules = f"{proc}/modules"
    # There is none in a kernel that can load none.
    for line in read_text(modules).splitlines() if exists(modules) else ():
        # Not how often and by whom it is used.
        name, size, _, _, state, address = line.split()[:6]
        try:
            folder = os.stat(f"{sysfs}/module/{name}").st_ino
        except FileNotFoundError:
            # It comes or goes at this moment.
            folder = 0
        lines.append(f"{name} {size} {state} {address} {folder}\n")
    return "".join(lines)


class BootMemory:
    """Serves as long as `loaded()` says the same."""

    def __init__(
        self,
        folder: str | PathLike[str] = "/run/batchprobe/boot",
        asked: Callable[[], str] = loaded,
    ) -> None:
        self._folder = folder
        self._asked = asked
        self.loaded = asked()
        """What `loaded()` said when this was made."""

    def symbols(self, read: Callable[[], CodeSymbols]) -> CodeSymbols:
        """What parse_kallsyms() makes of /proc/kallsyms."""
        if (found := self._recall("symbols")) is not None:
            return _unpack(*found)
        symbols = read()
        self._keep("symbols", *_pack(symbols))
        return symbols

    def text(self, name: str, read: Callable[[], bytes | None]) -> bytes | None:
        """A list that is only kept whole."""
        if (found := self._recall(name)) is not None:
            return bytes(found[1])
        text = read()
        if text:
            self._keep(name, (), text)
        return text

    def _recall(self, name: str) -> tuple[list[str], memoryview] | None:
        data = cache_file.read(f"{self._folder}/{name}")
        if data is None:
            return None
        size, newline, _ = bytes(data[:_LONGEST_SIZE]).partition(b"\n")
        if not newline or not size.isdigit():
            # Not of ours.
            return None
        begin = len(size) + 1
        end = begin + int(size)
        mark, *fields = str(data[begin:end], "ascii", "replace").split("\0")
        return (fields, data[end:]) if mark == self._mark else None

    def _keep(self, name: str, fields: Sequence[str], body: bytes) -> None:
        # What was read while a module came or went is of no use to others.
        if self._asked() == self.loaded:
            head = "\0".join((self._mark, *fields)).encode()
            cache_file.write(f"{self._folder}/{name}", b"%d\n%b%b" % (len(head), head, body))

    @property
    def _mark(self) -> str:
        return f"{_FORMAT} {sys.byteorder} {self.loaded}"


def _pack(symbols: CodeSymbols) -> tuple[Sequence[str], bytes]:
    parts = (
        symbols.addresses.tobytes(),
        symbols.index.table.tobytes(),
        bytes(symbols.functions),
        bytes(symbols.lines),
    )
    pairs = (
        [(len(part), "") for part in parts],
        [(symbols.init.start, ""), (symbols.init.stop, "")],
        symbols.runs,
        [(address, name) for name, address in symbols.landmarks.items()],
    )
    fields = [" ".join(f"{number}:{word}" for number, word in of) for of in pairs]
    return fields, b"".join(parts)


def _pairs(field: str) -> list[tuple[int, str]]:
    split = (pair.partition(":") for pair in field.split())
    return [(int(number), word) for number, _, word in split]


def _unpack(fields: Sequence[str], body: memoryview) -> CodeSymbols:
    sizes, init, runs, landmarks = map(_pairs, fields)
    parts = []
    for size, _ in sizes:
        parts.append(body[:size])
        body = body[size:]
    addresses, index, functions, lines = parts
    return CodeSymbols(
        addresses=addresses.cast("Q"),
        index=NameIndex(index.cast("I")),
        functions=functions,
        lines=lines,
        runs=tuple(runs),
        init=range(init[0][0], init[1][0]),
        landmarks={name: address for address, name in landmarks},
    )
