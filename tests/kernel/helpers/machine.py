# SPDX-License-Identifier: Apache-2.0
"""What the machine offers and holds, asked without batchprobe."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ABIS",
    "BCC_COMPILES",
    "COMPILER",
    "ENTRY_IS_FTRACE",
    "GUARDIAN",
    "HANG_SECONDS",
    "KNOB",
    "MACHINE",
    "PLACES",
    "PREFIX",
    "RELEASE",
    "TRACEFS",
    "Held",
    "children",
    "eventually",
    "held",
    "kinds",
    "our_events",
    "our_processes",
    "setting",
    "why_not",
]

TRACEFS = Path("/sys/kernel/tracing")
KNOB = Path("/sys/kernel/rcu_expedited")
# No test measures time; nothing may take this long, even under emulation on a busy machine.
HANG_SECONDS = 120.0

GUARDIAN = "batchprobe/cleanup/guardian_main.py"
"""What the command line of a guardian has in it."""
COMPILER = "batchprobe.programs.bcc_child"
"""What the command line of a compiler has in it."""
_OUR_MODULES = frozenset({"batchprobe", COMPILER})

RELEASE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
MACHINE = os.uname().machine
# Since when the stock kernels have CONFIG_FPROBE. One that should have an ABI and lacks it fails
# its tests.
_FPROBE = {
    "x86_64": (6, 12),
    "s390x": (6, 12),
    "ppc64le": (6, 12),
    "aarch64": (7, 0),
    "riscv64": (7, 0),
}
ABIS = ("multi", "event", "perf") if _FPROBE.get(MACHINE, (99,)) <= RELEASE else ("event", "perf")
# Where the ABIs event and perf can put an entry probe. riscv64 refuses the entry, where return
# probes have to be, before 7.0; on arm nothing is known of what follows it.
_REFUSES_ENTRY = MACHINE == "riscv64" and RELEASE < (7, 0)
PLACES = (
    *(() if _REFUSES_ENTRY else ("entry",)),
    *(() if MACHINE == "armv7l" else ("after",)),
)
# What a probe that is defined by hand needs behind a function's name.
BY_HAND = "+8" if _REFUSES_ENTRY else ""
# Whether a probe at an entry goes through ftrace: elsewhere it is a breakpoint there too.
ENTRY_IS_FTRACE = MACHINE in {"x86_64", "i686", "ppc64le", "s390x"}
# For i386 there is no bcc in Debian; on armhf it fails to compile anything.
BCC_COMPILES = MACHINE not in {"i686", "armv7l"}
_PREFIXES = {
    "x86_64": "__x64_sys_",
    "i686": "__ia32_sys_",
    "aarch64": "__arm64_sys_",
    "s390x": "__s390x_sys_",
    "riscv64": "__riscv_sys_",
}
PREFIX = _PREFIXES.get(MACHINE, "sys_")
"""What stands before a system call's name in that of its function."""


def kinds(abi: str) -> tuple[str, ...]:
    """What may follow a function in a list of this ABI: nothing, and where it can, %return."""
    first = ABIS[0] if abi == "auto" else abi
    return ("",) if _REFUSES_ENTRY and first != "multi" else ("", "%return")


def why_not() -> str:
    """Why no kprobe can be tested here, empty if they can."""
    if os.geteuid() != 0:
        return "attaching kprobes needs root"
    if not (TRACEFS / "kprobe_events").exists():
        return f"no {TRACEFS}/kprobe_events: a kernel with kprobes and a mounted tracefs is needed"
    return ""


@dataclass(frozen=True)
class Held:
    """What a run of batchprobe could leave behind."""

    events: tuple[str, ...]
    programs: frozenset[int]
    links: frozenset[int]
    expedited: str


def held() -> Held:
    """What the kernel holds now."""
    return Held(
        events=tuple(our_events()),
        programs=_bpf_ids("prog"),
        links=_bpf_ids("link"),
        expedited=KNOB.read_text().strip(),
    )


def our_events(pid: int | None = None) -> list[str]:
    """The lines of kprobe_events that are batchprobe's, of one process if it is named."""
    lines = (TRACEFS / "kprobe_events").read_text().splitlines()
    owner = ":batchprobe_" if pid is None else f":batchprobe_{pid}_"
    return [line for line in lines if owner in line]


def our_processes() -> dict[int, str]:
    """The command, its guardians and its compilers, each with its command line."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode().split("\0")
        except OSError:
            continue  # gone meanwhile
        if not _OUR_MODULES.isdisjoint(words) or any(word.endswith(GUARDIAN) for word in words):
            found[int(file.parent.name)] = " ".join(words)
    return found


def _bpf_ids(kind: str) -> frozenset[int]:
    shown = subprocess.run(("bpftool", "-j", kind, "show"), capture_output=True, check=True)
    return frozenset(entry["id"] for entry in json.loads(shown.stdout or b"[]"))


def children(pid: int | None = None) -> dict[int, str]:
    """The living children of a process (this one), each with its command line."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == (pid or os.getpid()):
                command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(stat.parent.name)] = command
        except OSError:
            continue  # gone meanwhile
    return found


def eventually(what: Callable[[], object], why: str, seconds: float = HANG_SECONDS) -> None:
    """Wait until `what` is true; fail with `why` if it does not become so."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {why}")
        time.sleep(0.01)


@contextlib.contextmanager
def setting(file: str | Path, value: str) -> Iterator[None]:
    """While in this block, a file of the kernel's says something else."""
    path = Path(file)
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)
