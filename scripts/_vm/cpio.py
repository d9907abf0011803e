# SPDX-License-Identifier: Apache-2.0
"""Archives in the kernel's initramfs format ("newc")."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A file, directory or symlink; `data` is the content or the link's target."""

    path: str
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o755


def directory(path: str) -> Entry:
    """A directory."""
    return Entry(path, b"", stat.S_IFDIR | 0o755)


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`; archives may be concatenated."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", b"", 0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + name
        _pad(out)
        out += entry.data
        _pad(out)
    return bytes(out)


def _pad(out: bytearray) -> None:
    out += bytes(-len(out) % 4)
