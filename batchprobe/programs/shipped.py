# SPDX-License-Identifier: Apache-2.0
"""Programs that were compiled ahead: a start with them needs neither clang nor kernel headers.

bytecode/ has a file for each kind of machine (word size, byte order, how it counts), with the
programs of every shipped action, without and with the shipped filters, and with those that follow
processes: a line "section NAME SHA256" with the hash of the C text, then the programs as text.
`scripts/build-programs` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from batchprobe.arch import Arch
from batchprobe.programs.program import Program, from_text
from batchprobe.sys.files import read_text

__all__ = ["BPF_FOLDER", "COMPILE", "FOLDER", "digest", "section", "shipped"]

COMPILE = "BATCHPROBE_COMPILE"
"""The environment variable that makes batchprobe compile even if bytecode is shipped."""
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bytecode")
BPF_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bpf")
"""The C files; in a checkout a symbolic link to the folder at its top."""


def digest(text: str) -> str:
    """Identifies the C text that bytecode was compiled from."""
    import hashlib  # noqa: PLC0415  (an installed package never asks)

    return hashlib.sha256(text.encode()).hexdigest()


def section(text: str, name: str) -> tuple[str, str] | None:
    """The hash and the programs of a section in the text of a file; None if it has none."""
    _, found, rest = f"\n{text}".partition(f"\nsection {name} ")
    sha256, _, programs = rest.partition("\nsection ")[0].partition("\n")
    return (sha256, programs) if found else None


def shipped(arch: Arch, name: str, text: Callable[[], str]) -> dict[str, Program] | None:
    """The programs of a section for this kind of machine; None if they must be compiled. `text` is
    their C.

    They depend on no kernel version: they read pt_regs, and by_running_kprobe the start of struct
    kprobe, which has not changed since 2.6.17.
    """
    if os.environ.get(COMPILE):
        return None
    try:
        found = section(read_text(f"{FOLDER}/{arch.bytecode}.txt"), name)
    except FileNotFoundError:
        return None
    if found is None:
        return None
    sha256, programs = found
    # Only a checkout has a link there, to sources that may have been edited since the last build.
    if os.path.islink(BPF_FOLDER) and sha256 != digest(text()):
        return None
    return from_text(programs)
