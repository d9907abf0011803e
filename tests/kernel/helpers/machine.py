# SPDX-License-Identifier: Apache-2.0
"""What this machine supports, and what its kernel holds; read without batchprobe."""

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
    "MACHINE",
    "PLACES",
    "PREFIX",
    "RCU_EXPEDITED",
    "RELEASE",
    "TRACEFS",
    "KernelState",
    "children",
    "eventually",
    "in_namespace",
    "kernel_state",
    "kinds",
    "missing_prerequisite",
    "our_events",
    "our_processes",
    "setting",
]

TRACEFS = Path("/sys/kernel/tracing")
RCU_EXPEDITED = Path("/sys/kernel/rcu_expedited")
# Whatever takes this long hangs, even under emulation on a busy machine.
HANG_SECONDS = 120.0

GUARDIAN = "batchprobe/cleanup/guardian_main.py"
"""Part of a guardian's command line."""
COMPILER = "batchprobe.programs.bcc_child"
"""Part of a compiler's command line."""
_OUR_MODULES = frozenset({"batchprobe", COMPILER})

RELEASE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
MACHINE = os.uname().machine
# The first stock kernels with CONFIG_FPROBE. A kernel that should have an ABI and lacks it fails
# the tests.
_FPROBE = {
    "x86_64": (6, 12),
    "s390x": (6, 12),
    "ppc64le": (6, 12),
    "aarch64": (7, 0),
    "riscv64": (7, 0),
}
ABIS = ("multi", "event", "perf") if _FPROBE.get(MACHINE, (99,)) <= RELEASE else ("event", "perf")
# Where the ABIs event and perf can place an entry probe. Before Linux 7.0, riscv64 refuses the
# entry, where return probes have to stand; on arm no site after the entry is known.
_REFUSES_ENTRY = MACHINE == "riscv64" and RELEASE < (7, 0)
PLACES = (
    *(() if _REFUSES_ENTRY else ("entry",)),
    *(() if MACHINE == "armv7l" else ("after",)),
)
# The offset that a probe needs if a test defines it by hand.
BY_HAND = "+8" if _REFUSES_ENTRY else ""
# Whether a probe at the entry goes through ftrace; elsewhere it is a breakpoint.
ENTRY_IS_FTRACE = MACHINE in {"x86_64", "i686", "ppc64le", "s390x"}
# Debian has no bcc for i386; on armhf bcc cannot compile anything.
BCC_COMPILES = MACHINE not in {"i686", "armv7l"}
_PREFIXES = {
    "x86_64": "__x64_sys_",
    "i686": "__ia32_sys_",
    "aarch64": "__arm64_sys_",
    "s390x": "__s390x_sys_",
    "riscv64": "__riscv_sys_",
}
PREFIX = _PREFIXES.get(MACHINE, "sys_")
"""The prefix of a system call's name in the name of its function."""


def kinds(abi: str) -> tuple[str, ...]:
    """The suffixes of entries that this ABI can probe: none and, where that works, %return."""
    first = ABIS[0] if abi == "auto" else abi
    return ("",) if _REFUSES_ENTRY and first != "multi" else ("", "%return")


def missing_prerequisite() -> str:
    """What is missing to test kprobes here; empty if nothing is."""
    if os.geteuid() != 0:
        return "attaching kprobes needs root"
    if not (TRACEFS / "kprobe_events").exists():
        return f"no {TRACEFS}/kprobe_events: a kernel with kprobes and a mounted tracefs is needed"
    return ""


@dataclass(frozen=True)
class KernelState:
    """Everything that a run of batchprobe could leave behind."""

    events: tuple[str, ...]
    programs: frozenset[int]
    links: frozenset[int]
    expedited: str


def kernel_state() -> KernelState:
    """The current state of the kernel."""
    return KernelState(
        events=tuple(our_events()),
        programs=_bpf_ids("prog"),
        links=_bpf_ids("link"),
        expedited=RCU_EXPEDITED.read_text().strip(),
    )


def our_events(pid: int | None = None) -> list[str]:
    """The lines of kprobe_events that batchprobe defined; with `pid`, those of that process."""
    lines = (TRACEFS / "kprobe_events").read_text().splitlines()
    owner = ":batchprobe_" if pid is None else f":batchprobe_{pid}_"
    return [line for line in lines if owner in line]


def our_processes() -> dict[int, str]:
    """Commands, guardians and compilers that run, by pid, with their command lines."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode().split("\0")
        except OSError:
            continue  # it ended meanwhile
        if not _OUR_MODULES.isdisjoint(words) or any(word.endswith(GUARDIAN) for word in words):
            found[int(file.parent.name)] = " ".join(words)
    return found


def _bpf_ids(kind: str) -> frozenset[int]:
    shown = subprocess.run(("bpftool", "-j", kind, "show"), capture_output=True, check=True)
    return frozenset(entry["id"] for entry in json.loads(shown.stdout or b"[]"))


def children(pid: int | None = None) -> dict[int, str]:
    """The children of a process (by default this one), by pid, with their command lines."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == (pid or os.getpid()):
                command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(stat.parent.name)] = command
        except OSError:
            continue  # it ended meanwhile
    return found


def eventually(what: Callable[[], object], why: str, seconds: float = HANG_SECONDS) -> None:
    """Wait until `what` returns true; fail with `why` if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {why}")
        time.sleep(0.01)


@contextlib.contextmanager
def setting(file: str | Path, value: str) -> Iterator[None]:
    """Inside this block, a kernel setting has another value."""
    path = Path(file)
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


def in_namespace(*commands: str) -> tuple[str, ...]:
    """A prefix that runs a command after `commands`, in a mount namespace of its own."""
    return ("unshare", "-m", "sh", "-c", f'{" && ".join(commands)} && exec "$@"', "sh")
