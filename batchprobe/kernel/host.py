"""What the running kernel says of itself in its files: read only, by anybody, on any machine.

What has to be tried to be known is in `batchprobe.doctor`.
"""

from __future__ import annotations

import os
from enum import Enum
from itertools import takewhile
from os import PathLike
from typing import NamedTuple

from batchprobe.errors import UnsupportedError
from batchprobe.sys.files import exists, read_bytes

__all__ = [
    "AS_ROOT",
    "Check",
    "Finding",
    "Status",
    "capabilities",
    "configuration",
    "ftrace",
    "jit",
    "kernel_config",
    "kprobes",
    "lacking",
    "lockdown",
    "lockdown_level",
    "ok",
    "require_tracing",
    "rights",
    "type_information",
    "version",
    "warn",
]

AS_ROOT = "run it with sudo"
_ANY_DISTRIBUTION = "boot a kernel with kprobes: any stock distribution kernel"

# include/uapi/linux/capability.h; BPF and PERFMON are parts of SYS_ADMIN since Linux 5.8.
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_PERFMON = 38
CAP_BPF = 39

# Without these nothing can be attached.
_REQUIRED = ("KPROBES", "KPROBE_EVENTS", "BPF_SYSCALL", "BPF_EVENTS")
# Without these something is, with what it costs.
_USEFUL = {
    "FPROBE": "the ABI multi",
    "KALLSYMS_ALL": "return probes before Linux 5.15",
    "PROC_KCORE": "probes behind the patch site",
    "BPF_JIT": "speed of each hit",
}


class Status(Enum):
    """LACKING: nothing can be attached like this (of an ABI: not by it). WARN: less well."""

    OK = "ok"
    WARN = "warn"
    LACKING = "lacking"


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    remedy: str
    """The one command, or sentence, that mends it; empty if there is nothing to do."""


Finding = tuple[Status, str, str]
"""A check's status, detail and remedy."""


def ok(detail: str) -> Finding:
    """All is well."""
    return Status.OK, detail, ""


def warn(detail: str, remedy: str = "") -> Finding:
    """It works less well like this, or cannot be known."""
    return Status.WARN, detail, remedy


def lacking(detail: str, remedy: str = "") -> Finding:
    """Nothing can be attached like this."""
    return Status.LACKING, detail, remedy


def version(release: str) -> tuple[int, int]:
    """A kernel's version: (6, 12) of "6.12.107+deb13-amd64"; (0, 0) if it has none."""
    major, _, rest = release.partition(".")
    minor = "".join(takewhile(str.isdigit, rest))
    return (int(major), int(minor)) if major.isdigit() and minor else (0, 0)


def capabilities(status: str) -> frozenset[int]:
    """The effective capabilities in the text of /proc/PID/status, by number."""
    # No expression, which takes long to import and to compile.
    mask = int(f"\n{status}".partition("\nCapEff:")[2].partition("\n")[0].strip() or "0", 16)
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def kernel_config(text: str) -> frozenset[str]:
    """The options that a kernel's .config sets, without their CONFIG_."""
    import re  # noqa: PLC0415  (no start asks)

    return frozenset(re.findall(r"^CONFIG_(\w+)=(?!n$)", text, re.MULTILINE))


def lockdown_level(text: str) -> str:
    """The level in brackets in /sys/kernel/security/lockdown: none, integrity, confidentiality."""
    return text.partition("[")[2].partition("]")[0]


def require_tracing() -> None:
    """Raise UnsupportedError where this process may not attach, or probes would count nothing."""
    for status, detail, remedy in (rights(), lockdown(), kprobes(), ftrace()):
        if status is Status.LACKING:
            raise UnsupportedError(detail, remedy=remedy)


def rights(root: str | PathLike[str] = "", *, euid: int | None = None) -> Finding:
    """Whether this process may attach: as root, with the capabilities of the first namespace.

    The kernel asks for CAP_BPF (bpf_capable()) and CAP_PERFMON (perfmon_capable()), either of which
    CAP_SYS_ADMIN includes, and never for those of a user namespace (include/linux/capability.h).
    """
    owned = capabilities(_read(f"{root}/proc/self/status") or "")
    can = CAP_SYS_ADMIN in owned or {CAP_BPF, CAP_PERFMON} <= owned
    if (os.geteuid() if euid is None else euid) != 0:
        more = ": tracefs and kallsyms are root's, so capabilities alone do not do" if can else ""
        return lacking(f"attaching kprobes needs root{more}", AS_ROOT)
    # The first namespace maps all 2^32 - 1 users to themselves.
    if (_read(f"{root}/proc/self/uid_map") or "").split() not in ([], ["0", "0", "4294967295"]):
        return lacking(
            "root of a user namespace only, which the kernel does not let probe it",
            "run it as root of the host, outside the container",
        )
    if not can:
        return lacking(
            "root without CAP_SYS_ADMIN, and without CAP_BPF and CAP_PERFMON",
            "run it outside the container, or start that with --privileged",
        )
    return ok("root, with the capabilities it takes")


def lockdown(root: str | PathLike[str] = "") -> Finding:
    """Whether the kernel is locked down too far.

    Kprobes, tracefs, perf, BPF reads of kernel memory and /proc/kcore are all refused by
    confidentiality and allowed by integrity (enum lockdown_reason, include/linux/security.h).
    """
    text = _read(f"{root}/sys/kernel/security/lockdown")
    if text is None:
        # There is nothing to read either without the LSM or securityfs, or, on some, as a user.
        return ok("no lockdown to be seen")
    level = lockdown_level(text)
    if level == "confidentiality":
        return lacking(
            "locked down to confidentiality: the kernel refuses kprobes, tracefs and BPF reads",
            "boot with lockdown=integrity or none, see kernel_lockdown(7)",
        )
    return ok("integrity, which lets kprobes be" if level == "integrity" else "none")


def configuration(root: str | PathLike[str] = "", *, release: str | None = None) -> Finding:
    """What the kernel was built with, where its configuration can be read."""
    release = release or os.uname().release
    places = (
        "proc/config.gz",
        f"boot/config-{release}",
        f"lib/modules/{release}/config",  # Fedora
        f"lib/modules/{release}/build/.config",  # the headers' package
    )
    for place in places:
        text = _read(f"{root}/{place}")
        if text:
            break
    else:
        return warn("cannot be read here; the other checks try for themselves", "modprobe configs")
    options = kernel_config(text)
    missing = [f"CONFIG_{name}" for name in _REQUIRED if name not in options]
    if missing:
        return lacking(f"/{place} does not set {', '.join(missing)}", _ANY_DISTRIBUTION)
    without = [f"CONFIG_{name} ({why})" for name, why in _USEFUL.items() if name not in options]
    if without:
        return ok(f"has what it takes; without {', '.join(without)}")
    return ok("has all that is of use")


def kprobes(root: str | PathLike[str] = "") -> Finding:
    """Whether the kernel has kprobes, and whether they are armed and jump-optimized.

    Both switches are in kernel/kprobes.c. Disarmed, a probe attaches without an error and counts
    nothing.
    """
    switches = f"{root}/sys/kernel/debug/kprobes"
    # Readable by root, and not even by root where the kernel is locked down.
    armed = _read(f"{switches}/enabled")
    optimized = _read(f"{root}/proc/sys/debug/kprobes-optimization")
    if armed is None and optimized is None and not _has_symbol("register_kprobe", root):
        return lacking("this kernel has no kprobes (CONFIG_KPROBES)", _ANY_DISTRIBUTION)
    if armed == "0":
        return lacking(
            "disarmed: probes would count nothing", "echo 1 > /sys/kernel/debug/kprobes/enabled"
        )
    if optimized == "0":
        return warn(
            "not jump-optimized: a hit behind the patch site costs a breakpoint",
            "sysctl -w debug.kprobes-optimization=1",
        )
    how = "armed" if armed else "there"
    return ok(f"{how}, jump-optimized" if optimized else how)


def ftrace(root: str | PathLike[str] = "") -> Finding:
    """Whether ftrace is on: off, what goes through it attaches without an error, counts nothing.

    That is a probe at a function's entry and all of `multi`; a breakpoint behind the patch site
    counts all the same (ftrace_startup_enable(), kernel/trace/ftrace.c; seen on 5.10 and 6.12).
    """
    enabled = _read(f"{root}/proc/sys/kernel/ftrace_enabled")
    if enabled == "0":
        return lacking(
            "off: probes at a function's entry would count nothing",
            "sysctl -w kernel.ftrace_enabled=1",
        )
    return ok("on") if enabled else warn("not in this kernel (CONFIG_FUNCTION_TRACER): no multi")


def type_information(root: str | PathLike[str] = "") -> Finding:
    """Whether the kernel has BTF (Linux 5.4, CONFIG_DEBUG_INFO_BTF)."""
    if exists(f"{root}/sys/kernel/btf/vmlinux"):
        return ok("/sys/kernel/btf/vmlinux")
    return ok("none, and none is needed: bcc compiles against the headers")


def jit(root: str | PathLike[str] = "") -> Finding:
    """Whether BPF programs are compiled (Documentation/admin-guide/sysctl/net.rst)."""
    command = "sysctl -w net.core.bpf_jit_enable=1"
    match _read(f"{root}/proc/sys/net/core/bpf_jit_enable"):
        case "0":
            return warn("off: programs are interpreted, each hit costs more", command)
        case "1":
            return ok("on")
        case "2":
            return warn("on, and every program is dumped to the kernel's log", command)
        case _:
            # Not in this kernel, or not in this network namespace.
            return warn("unknown: this kernel or container has no net.core.bpf_jit_enable")


def _has_symbol(name: str, root: str | PathLike[str]) -> bool:
    # Names are there for everybody, addresses are not.
    return f" {name}\n" in f"{_read(f'{root}/proc/kallsyms') or ''}\n"


def _read(path: str) -> str | None:
    """A file's text without the space around it, None if it cannot be read."""
    try:
        data = read_bytes(path)
        if path.endswith(".gz"):
            data = _unpacked(data)
    except (OSError, EOFError):
        return None
    return data.decode("utf-8", "replace").strip()


def _unpacked(data: bytes) -> bytes:
    import gzip  # noqa: PLC0415  (only the kernel's configuration is packed)
    import zlib  # noqa: PLC0415

    try:
        return gzip.decompress(data)
    except zlib.error as error:
        raise EOFError from error
