# SPDX-License-Identifier: Apache-2.0
"""Programs that were compiled ahead: a start with them needs neither clang nor kernel headers.

bytecode/ has a file for each kind of machine (word size, byte order, how it counts), with the
programs of every shipped action. `scripts/build-programs` writes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from batchprobe.arch import Arch
from batchprobe.programs.program import Program, from_json
from batchprobe.programs.source import BPF_FOLDER, ProgramSource
from batchprobe.sys.files import read_bytes

__all__ = ["COMPILE", "FOLDER", "digest", "shipped"]

COMPILE = "BATCHPROBE_COMPILE"
"""The environment variable that makes batchprobe compile even if bytecode is shipped."""
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bytecode")


def digest(source: ProgramSource) -> str:
    """Identifies the text that bytecode was compiled from."""
    import hashlib  # noqa: PLC0415  (2 ms, and an installed package never asks)

    return hashlib.sha256(source.text.encode()).hexdigest()


def shipped(
    arch: Arch, action: str, source: Callable[[], ProgramSource]
) -> dict[str, Program] | None:
    """The programs of an action for this kind of machine; None if they must be compiled.

    They depend on no kernel version: they read pt_regs, and by_running_kprobe the start of struct
    kprobe, which has not changed since 2.6.17.
    """
    if os.environ.get(COMPILE):
        return None
    try:
        found = json.loads(read_bytes(f"{FOLDER}/{arch.bytecode}.json"))[action]
    except (FileNotFoundError, KeyError):
        return None
    # Only a checkout has a link there, to sources that may have been edited since the last build.
    if os.path.islink(BPF_FOLDER) and found["sha256"] != digest(source()):
        return None
    return from_json(found["programs"])
