# SPDX-License-Identifier: Apache-2.0
"""Compile the shipped bytecode with bcc, in a guest: `scripts/build-programs` runs this.

    python3 scripts/_bytecode.py FOLDER

Writes a file for each kind of machine that has this machine's byte order: clang compiles for any
word size of one byte order, and the facts that differ are in the text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from batchprobe import arch
from batchprobe.actions import Action
from batchprobe.actions.loader import SHIPPED, section_of, source_of
from batchprobe.errors import UnsupportedError
from batchprobe.filters.base import Filter
from batchprobe.filters.scope import Scope
from batchprobe.programs.compiler import compile_now
from batchprobe.programs.program import to_text
from batchprobe.programs.shipped import digest
from batchprobe.programs.source import ProgramSource, tasks
from batchprobe.programs.tasks import SECTION

__all__ = ["content", "sections", "variants"]


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


def sections(adapter: arch.Arch) -> Iterator[tuple[str, ProgramSource]]:
    """What to compile, by the name of its section."""
    for shipped in SHIPPED:
        module, name = shipped.split(".")
        action: Action = getattr(import_module(f"batchprobe.actions.{module}"), name)()
        alone: list[Filter] = []
        for filters in (alone, [Scope([])]):
            yield section_of(action, filters), source_of(adapter, action, filters)
    yield SECTION, tasks()


def content(adapter: arch.Arch) -> str:
    """What the file of this kind of machine should be, compiled here."""
    found = []
    for name, source in sections(adapter):
        programs = to_text(compile_now(source).values())
        found.append(f"section {name} {digest(source.text)}\n{programs}")
    return "".join(found)


def main(folder: Path) -> int:
    """Write the files; returns the exit status."""
    for adapter in variants():
        if adapter.byteorder == sys.byteorder:
            (folder / f"{adapter.bytecode}.txt").write_text(content(adapter))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
