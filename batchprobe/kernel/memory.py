"""What the kernel takes long to list, kept for the next start of this boot.

Reading the symbols takes most of a start: a tenth of a second on hardware, several under emulation.
They change only when modules come or go. The files are in /run, readable by this user alone, for
addresses are a secret, and gone with the boot: 5 MB for 115,000 symbols.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchprobe import kept
from batchprobe.kernel.kallsyms import CodeSymbols
from batchprobe.kernel.names import NameIndex

__all__ = ["BootMemory", "loaded"]

# To be raised when kallsyms.py finds something else in the same text.
_FORMAT = 4


def loaded(proc: Path = Path("/proc"), sysfs: Path = Path("/sys")) -> str:
    """Says of this boot which modules are loaded: another text, other symbols.

    A module that was loaded anew may have its old name, size and address. Its folder in sysfs is
    another then, and kernfs gives inode numbers in turn (fs/kernfs/dir.c, Linux 3.14).
    """
    lines = [(proc / "sys/kernel/random/boot_id").read_text()]
    modules = proc / "modules"
    # There is none in a kernel that can load none.
    for line in modules.read_text().splitlines() if modules.exists() else ():
        # Not how often and by whom it is used.
        name, size, _, _, state, address = line.split()[:6]
        try:
            folder = (sysfs / "module" / name).stat().st_ino
        except FileNotFoundError:
            # It comes or goes at this moment.
            folder = 0
        lines.append(f"{name} {size} {state} {address} {folder}\n")
    return "".join(lines)


class BootMemory:
    """Serves as long as `loaded()` says the same."""

    def __init__(
        self,
        folder: Path = Path("/run/batchprobe/boot"),
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
            self._keep(name, {}, text)
        return text

    def _recall(self, name: str) -> tuple[dict[str, Any], memoryview] | None:
        data = kept.read(self._folder / name) or b""
        line = data.find(b"\n") + 1
        try:
            head = json.loads(data[:line])
        except ValueError:
            # Nothing, or not of ours.
            return None
        if not isinstance(head, dict) or head.get("key") != self._mark:
            return None
        return head["content"], memoryview(data)[line:]

    def _keep(self, name: str, content: dict[str, Any], body: bytes) -> None:
        # What was read while a module came or went is of no use to others.
        if self._asked() == self.loaded:
            head = json.dumps({"key": self._mark, "content": content})
            kept.write(self._folder / name, head.encode() + b"\n" + body)

    @property
    def _mark(self) -> list[object]:
        return [_FORMAT, sys.byteorder, self.loaded]


def _pack(symbols: CodeSymbols) -> tuple[dict[str, Any], bytes]:
    parts = (
        symbols.addresses.tobytes(),
        symbols.index.table.tobytes(),
        bytes(symbols.functions),
        bytes(symbols.lines),
    )
    content = {
        "sizes": [len(part) for part in parts],
        "runs": symbols.runs,
        "init": [symbols.init.start, symbols.init.stop],
        "landmarks": symbols.landmarks,
    }
    return content, b"".join(parts)


def _unpack(content: dict[str, Any], body: memoryview) -> CodeSymbols:
    parts = []
    for size in content["sizes"]:
        parts.append(body[:size])
        body = body[size:]
    addresses, index, functions, lines = parts
    return CodeSymbols(
        addresses=addresses.cast("Q"),
        index=NameIndex(index.cast("I")),
        functions=functions,
        lines=lines,
        runs=tuple((start, module) for start, module in content["runs"]),
        init=range(*content["init"]),
        landmarks=content["landmarks"],
    )
