# SPDX-License-Identifier: Apache-2.0
"""The command line of each tool, as its package installs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from _bench.jobs import (
    BATCHED,
    BATCHPROBE,
    BPFTRACE,
    FIRST_START,
    FUNCCOUNT,
    FUNCLATENCY,
    PRINTF,
    TRACE,
)

_LIST = Path("/run/bench-list")
# What `trace` prints of the function that hits are measured with.
_PRINTED = 'printf("%llu %d %d %s %p %d %p\\n", nsecs, cpu, tid, comm, arg0, arg1, arg2);'


def command_line(tool: str, glob: str) -> list[str]:
    """What counts the functions of the glob until Ctrl-C."""
    if tool in (FUNCCOUNT, FUNCLATENCY):
        return [_path(f"{tool}-bpfcc"), glob]
    if tool == BATCHED:
        return [_path(BATCHPROBE), "run", "--quiet", _path("funccount-bpfcc"), glob]
    if tool == BPFTRACE:
        return [_path("bpftrace"), "-e", f"kprobe:{glob} {{ @[func] = count(); }}"]
    if tool == PRINTF:
        return [_path("bpftrace"), "-o", "/dev/null", "-e", f"kprobe:{glob} {{ {_PRINTED} }}"]
    if tool == TRACE:
        return [_path(BATCHPROBE), "trace", "-o", "/dev/null", glob]
    abi = [] if tool == FIRST_START else tool.removeprefix(BATCHPROBE).split()
    options = ["--abi", abi[0]] if abi else []
    options += ["--placement", abi[1]] if abi[1:] else []
    _LIST.write_text(f"{glob}\n")
    return [_path(BATCHPROBE), "attach", *options, str(_LIST)]


def _path(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        raise RuntimeError(f"there is no {tool} here")
    return found
