# SPDX-License-Identifier: Apache-2.0
"""Caches kernel symbols and other lists in /run until the next boot.

Reading the symbols takes most of a start: several seconds under emulation. They
change only when modules are loaded or unloaded. The files hold kernel addresses, so only this user
can read them: 5 MB for 115,000 symbols.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from os import PathLike

from batchprobe.functions.symbols import CodeSymbols, NameIndex
from batchprobe.sys import cache_file
from batchprobe.sys.files import RUN_FOLDER, exists, read_text

__all__ = ["FOLDER", "SymbolCache", "kept_symbols", "loaded_modules"]


def _folder() -> str:
    """A folder for files that only this user may read."""
    if os.geteuid() == 0:
        return f"{RUN_FOLDER}/boot"
    home = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME")
    return f"{home or os.path.expanduser('~/.cache')}/batchprobe/boot"


FOLDER = _folder()


# Increment this when parse_kallsyms() returns something else for the same text, or BtfTypes.packed
# for the same BTF.
_FORMAT = 6
_VERSION = f"{_FORMAT} {sys.byteorder} "
# Maximum length of a file's first line, which holds the size of its header.
_MAX_SIZE_LINE = 12


def loaded_modules(proc: str | PathLike[str] = "/proc", sysfs: str | PathLike[str] = "/sys") -> str:
    """Return a text that identifies this boot and its loaded modules, hence its symbols.

    Raises OSError if the files cannot be read.
    """
    lines = [read_text(f"{proc}/sys/kernel/random/boot_id")]
    # A module that was reloaded may have the same name, size and address, but its sysfs directory
    # has a new inode number: kernfs numbers inodes sequentially (fs/kernfs/dir.c, Linux 3.14).
    with os.scandir(f"{sysfs}/module") as folders:
        inodes = {folder.name: folder.inode() for folder in folders}
    modules = f"{proc}/modules"
    # Absent without CONFIG_MODULES.
    for line in read_text(modules).splitlines() if exists(modules) else ():
        # Leave out the reference count and the users, which change all the time.
        name, size, _, _, state, address = line.split()[:6]
        # None while the module is being loaded or unloaded.
        lines.append(f"{name} {size} {state} {address} {inodes.get(name, 0)}\n")
    return "".join(lines)


class SymbolCache:
    """Cached lists of the kernel, valid while `read_loaded()` returns the same text."""

    def __init__(
        self,
        folder: str | PathLike[str] = FOLDER,
        read_loaded: Callable[[], str] = loaded_modules,
    ) -> None:
        self._folder = folder
        self._read_loaded = read_loaded
        self.loaded = read_loaded()
        """What `loaded_modules` returned when this object was made."""

    def symbols(self, read: Callable[[], CodeSymbols]) -> CodeSymbols:
        """Return the cached symbols; if there are none, those that `read` returns."""
        if (found := self._load("symbols")) is not None:
            return _unpack(*found)
        symbols = read()
        self._store("symbols", *_pack(symbols))
        return symbols

    def text(self, name: str, read: Callable[[], bytes | None]) -> bytes | None:
        """Return the cached list `name`; if there is none, the one that `read` returns.

        An empty list is not stored.
        """
        if (found := self._load(name)) is not None:
            return bytes(found[1])
        text = read()
        if text:
            self._store(name, (), text)
        return text

    def mapped(self, name: str, read: Callable[[], bytes]) -> memoryview:
        """Like `text`, for much data of which a start needs little: it is not copied."""
        if (found := self._load(name)) is not None:
            return found[1]
        data = read()
        self._store(name, (), data)
        return memoryview(data)

    def _load(self, name: str) -> tuple[list[str], memoryview] | None:
        header, fields, body = _read(f"{self._folder}/{name}")
        return (fields, body) if header == self._header else None

    def _store(self, name: str, fields: Sequence[str], body: bytes) -> None:
        # A list read while modules came or went may match neither state.
        if self._read_loaded() == self.loaded:
            head = "\0".join((self._header, *fields)).encode()
            cache_file.write(f"{self._folder}/{name}", b"%d\n%b%b" % (len(head), head, body))

    @property
    def _header(self) -> str:
        return f"{_VERSION}{self.loaded}"


def kept_symbols(folder: str | PathLike[str] = FOLDER) -> CodeSymbols | None:
    """Return the symbols that were last kept, even if modules came or went since; None if there
    are none. Reads nothing of the kernel's.
    """
    header, fields, body = _read(f"{folder}/symbols")
    return _unpack(fields, body) if header.startswith(_VERSION) else None


def _read(file: str) -> tuple[str, list[str], memoryview]:
    """A file's header, fields and body; the header is empty if it is not one of our files."""
    data = cache_file.read(file)
    if data is None:
        return "", [], memoryview(b"")
    size, newline, _ = bytes(data[:_MAX_SIZE_LINE]).partition(b"\n")
    if not newline or not size.isdigit():
        return "", [], memoryview(b"")
    begin = len(size) + 1
    end = begin + int(size)
    header, *fields = str(data[begin:end], "ascii", "replace").split("\0")
    return header, fields, data[end:]


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
