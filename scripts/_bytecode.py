# SPDX-License-Identifier: Apache-2.0
"""Compile the shipped bytecode with bcc, in a guest: `scripts/build-programs` runs this.

    python3 scripts/_bytecode.py FOLDER

Writes a file for each kind of machine that has this machine's byte order: clang compiles for any
word size of one byte order, and the facts that differ are in the text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from batchprobe import arch
from batchprobe.actions.loader import SHIPPED, source_of
from batchprobe.errors import UnsupportedError
from batchprobe.programs.compiler import compile_json
from batchprobe.programs.shipped import digest

__all__ = ["content", "variants"]


def variants() -> Iterator[arch.Arch]:
    """An adapter for each kind of machine."""
    seen = set()
    for file in arch.ADAPTERS:
        try:
            adapter = arch.adapter(file)
        except UnsupportedError:
            continue
        if adapter.bytecode not in seen:
            seen.add(adapter.bytecode)
            yield adapter


def content(adapter: arch.Arch) -> str:
    """What the file of this kind of machine should be, compiled here."""
    entries = {}
    for action in SHIPPED:
        source = source_of(adapter, action())
        entries[action.name] = {"sha256": digest(source), "programs": compile_json(source)}
    return json.dumps(entries, indent=1) + "\n"


def main(folder: Path) -> int:
    """Write the files; returns the exit status."""
    for adapter in variants():
        if adapter.byteorder == sys.byteorder:
            (folder / f"{adapter.bytecode}.json").write_text(content(adapter))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
