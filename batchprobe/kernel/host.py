# SPDX-License-Identifier: Apache-2.0
"""Checks of the running kernel that only read its files.

Checks that have to try something, such as attaching a probe, are in `batchprobe.doctor`.
"""

from __future__ import annotations

import os
import zlib
from enum import Enum
from itertools import takewhile
from os import PathLike

from batchprobe.errors import UnsupportedError
from batchprobe.sys.files import exists, read_bytes

__all__ = [
    "AS_ROOT",
    "Finding",
    "Status",
    "check_btf",
    "check_config",
    "check_ftrace",
    "check_jit",
    "check_kprobes",
    "check_lockdown",
    "check_privileges",
    "config_options",
    "effective_capabilities",
    "kernel_version",
    "lacking",
    "lockdown_level",
    "ok",
    "require_descriptors",
    "require_initial_pid_namespace",
    "require_tracing",
    "threads",
    "warn",
]

AS_ROOT = "run it with sudo"
_ANY_DISTRIBUTION = "boot a kernel with kprobes: any stock distribution kernel"

# include/uapi/linux/capability.h; Linux 5.8 split BPF and PERFMON off SYS_ADMIN.
CAP_DAC_READ_SEARCH = 2
CAP_SYS_RAWIO = 17
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_SYSLOG = 34
CAP_PERFMON = 38
CAP_BPF = 39

# Two kinds of probe, each with two ABIs to try, open up to 9 descriptors each; a compiler and late
# imports need some too.
_MIN_DESCRIPTORS = 64

# PROC_PID_INIT_INO, include/linux/proc_ns.h
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC

# Options without which nothing can be attached.
_REQUIRED = ("KPROBES", "KPROBE_EVENTS", "BPF_SYSCALL", "BPF_EVENTS")
# Options worth having, and what each of them provides.
_USEFUL = {
    "FPROBE": "the ABI multi",
    "KALLSYMS_ALL": "return probes before Linux 5.15",
    "PROC_KCORE": "probes after the patch site",
    "BPF_JIT": "compiled programs",
}


class Status(Enum):
    """The result of a check.

    LACKING: nothing can be attached; for an ABI, nothing by this ABI. WARN: something is slower or
    unavailable.
    """

    OK = "ok"
    WARN = "warn"
    LACKING = "lacking"


Finding = tuple[Status, str, str]
"""The status, detail and remedy of a check."""


def ok(detail: str) -> Finding:
    """A finding that needs no action."""
    return Status.OK, detail, ""


def warn(detail: str, remedy: str = "") -> Finding:
    """A finding that something is slower, unavailable or unknown."""
    return Status.WARN, detail, remedy


def lacking(detail: str, remedy: str = "") -> Finding:
    """A finding that prevents attaching."""
    return Status.LACKING, detail, remedy


def kernel_version(release: str) -> tuple[int, int]:
    """Parse a release string: (6, 12) for "6.12.107+deb13-amd64", (0, 0) if there is no version."""
    major, _, rest = release.partition(".")
    minor = "".join(takewhile(str.isdigit, rest))
    return (int(major), int(minor)) if major.isdigit() and minor else (0, 0)


def effective_capabilities(status: str) -> frozenset[int]:
    """Parse the effective capabilities, by number, from the text of /proc/PID/status."""
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "")
    mask = int(line.partition(":")[2] or "0", 16)
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def config_options(text: str) -> frozenset[str]:
    """Parse the options that a kernel's .config sets, without their CONFIG_ prefix."""
    lines = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return frozenset(name.removeprefix("CONFIG_") for name, _, value in lines if value != "n")


def lockdown_level(text: str) -> str:
    """Parse /sys/kernel/security/lockdown: the level in brackets, empty if there is none."""
    return text.partition("[")[2].partition("]")[0]


def require_tracing() -> None:
    """Raise UnsupportedError if this process may not attach, or if its probes would never fire."""
    for check in (check_privileges, check_lockdown, check_kprobes, check_ftrace):
        status, detail, remedy = check()
        if status is Status.LACKING:
            raise UnsupportedError(detail, remedy=remedy)


def threads() -> int:
    """How many threads there are now."""
    return int(read_bytes("/proc/loadavg").split()[3].partition(b"/")[2])


def require_initial_pid_namespace() -> None:
    """Raise UnsupportedError where processes have other numbers here than in the kernel."""
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        raise UnsupportedError(
            "processes cannot be told apart from inside a PID namespace, where their numbers are "
            "not the kernel's",
            remedy="run it outside of the container, or count all processes (with -c: add --all)",
        )


def require_descriptors(root: str | PathLike[str] = "") -> None:
    """Raise UnsupportedError if so few files may be open that an attach would fail half-way."""
    # Not resource.getrlimit(): a start does without that import.
    _, _, rest = (_read(f"{root}/proc/self/limits") or "").partition("Max open files")
    soft = "".join(rest.split()[:1])
    if soft.isdigit() and int(soft) < _MIN_DESCRIPTORS:
        raise UnsupportedError(
            f"only {soft} files may be open at once, and an attach needs {_MIN_DESCRIPTORS}",
            remedy="ulimit -n 1024",
        )


def check_privileges(root: str | PathLike[str] = "", *, euid: int | None = None) -> Finding:
    """Check whether this process may attach kprobes.

    The kernel requires CAP_BPF (bpf_capable()) and CAP_PERFMON (perfmon_capable()), which
    CAP_SYS_ADMIN includes, in the initial user namespace (include/linux/capability.h). Addresses
    in kallsyms require CAP_SYSLOG. tracefs is for root only.
    """
    owned = effective_capabilities(_read(f"{root}/proc/self/status") or "")
    is_capable = CAP_SYS_ADMIN in owned or {CAP_BPF, CAP_PERFMON} <= owned
    is_root = (os.geteuid() if euid is None else euid) == 0
    if not is_root and not is_capable:
        return lacking(
            "attaching kprobes needs root, or CAP_BPF, CAP_PERFMON and CAP_SYSLOG", AS_ROOT
        )
    # The initial user namespace maps all 2^32 - 1 users to themselves.
    if (_read(f"{root}/proc/self/uid_map") or "").split() not in ([], ["0", "0", "4294967295"]):
        return lacking(
            "root in a user namespace, which may not attach kprobes",
            "run it as root on the host, outside the container",
        )
    if not is_capable:
        return lacking(
            "root without CAP_SYS_ADMIN, and without CAP_BPF and CAP_PERFMON",
            "run it outside the container, or start the container with --privileged",
        )
    if not is_root:
        return _without_root(owned)
    return ok("root with the required capabilities")


def _without_root(owned: frozenset[int]) -> Finding:
    """What a user with capabilities can do, and what more would bring."""
    more = []
    if not {CAP_SYSLOG, CAP_SYS_ADMIN} & owned:
        more.append("CAP_SYSLOG the addresses of functions, without which nothing can be attached")
    if CAP_SYS_RAWIO not in owned or CAP_DAC_READ_SEARCH not in owned:
        more.append(
            "CAP_SYS_RAWIO and CAP_DAC_READ_SEARCH the code of functions (/proc/kcore), for probes "
            "after the patch site"
        )
    more.append("root the ABI event (tracefs) and short grace periods (rcu_expedited)")
    return warn(f"no root, but CAP_BPF and CAP_PERFMON; these would add: {'; '.join(more)}")


def check_lockdown(root: str | PathLike[str] = "") -> Finding:
    """Check whether lockdown forbids kprobes.

    Level confidentiality forbids kprobes, tracefs, perf, BPF reads of kernel memory and
    /proc/kcore; level integrity allows them all (enum lockdown_reason, include/linux/security.h).
    """
    text = _read(f"{root}/sys/kernel/security/lockdown")
    if text is None:
        # Absent without the LSM or securityfs; on some systems only root can read it.
        return ok("no lockdown detected")
    level = lockdown_level(text)
    if level == "confidentiality":
        return lacking(
            "lockdown level confidentiality: the kernel refuses kprobes, tracefs and BPF reads",
            "boot with lockdown=integrity or none, see kernel_lockdown(7)",
        )
    return ok("integrity, which allows kprobes" if level == "integrity" else "none")


def check_config(root: str | PathLike[str] = "", *, release: str | None = None) -> Finding:
    """Check the kernel's build options, if they can be read.

    `release` defaults to that of the running kernel.
    """
    release = release or os.uname().release
    files = (
        "proc/config.gz",
        f"boot/config-{release}",
        f"lib/modules/{release}/config",  # Fedora
        f"lib/modules/{release}/build/.config",  # kernel headers package
    )
    for file in files:
        text = _read(f"{root}/{file}")
        if text:
            break
    else:
        return warn("not readable; the other checks do not depend on it", "modprobe configs")
    options = config_options(text)
    missing = [f"CONFIG_{name}" for name in _REQUIRED if name not in options]
    if missing:
        return lacking(f"/{file} does not set {', '.join(missing)}", _ANY_DISTRIBUTION)
    absent = [f"CONFIG_{name} ({use})" for name, use in _USEFUL.items() if name not in options]
    if absent:
        return ok(f"sufficient, but without {', '.join(absent)}")
    return ok("complete")


def check_kprobes(root: str | PathLike[str] = "") -> Finding:
    """Check whether the kernel has kprobes, and whether they are armed and jump-optimized.

    Both switches are in kernel/kprobes.c. While kprobes are disarmed, attaching succeeds but no
    probe fires.
    """
    switches = f"{root}/sys/kernel/debug/kprobes"
    # Readable by root only, and by nobody under lockdown.
    armed = _read(f"{switches}/enabled")
    optimized = _read(f"{root}/proc/sys/debug/kprobes-optimization")
    if armed is None and optimized is None and not _has_symbol("register_kprobe", root):
        return lacking("this kernel has no kprobes (CONFIG_KPROBES)", _ANY_DISTRIBUTION)
    if armed == "0":
        return lacking(
            "kprobes are disarmed (debugfs kprobes/enabled is 0): probes would never fire",
            "echo 1 > /sys/kernel/debug/kprobes/enabled",
        )
    if optimized == "0":
        return warn(
            "not jump-optimized: each hit after the patch site costs a breakpoint",
            "sysctl -w debug.kprobes-optimization=1",
        )
    state = "armed" if armed else "available"
    return ok(f"{state}, jump-optimized" if optimized else state)


def check_ftrace(root: str | PathLike[str] = "") -> Finding:
    """Check whether ftrace is enabled.

    While it is off, ftrace-based probes (those at a function's entry, and all of `multi`) attach
    without an error but never fire. Breakpoints after the patch site do fire
    (ftrace_startup_enable(), kernel/trace/ftrace.c; seen on 5.10 and 6.12).
    """
    enabled = _read(f"{root}/proc/sys/kernel/ftrace_enabled")
    if enabled == "0":
        return lacking(
            "ftrace is off (kernel.ftrace_enabled is 0): probes at a function's entry would never "
            "fire",
            "sysctl -w kernel.ftrace_enabled=1",
        )
    if not enabled:
        return warn("not in this kernel (CONFIG_FUNCTION_TRACER), so the ABI multi is unavailable")
    return ok("on")


def check_btf(root: str | PathLike[str] = "") -> Finding:
    """Check whether the kernel has BTF type information (Linux 5.4, CONFIG_DEBUG_INFO_BTF)."""
    if exists(f"{root}/sys/kernel/btf/vmlinux"):
        return ok("/sys/kernel/btf/vmlinux")
    return ok("none; not needed, bcc compiles against the kernel headers")


def check_jit(root: str | PathLike[str] = "") -> Finding:
    """Check whether BPF programs are compiled (Documentation/admin-guide/sysctl/net.rst)."""
    command = "sysctl -w net.core.bpf_jit_enable=1"
    match _read(f"{root}/proc/sys/net/core/bpf_jit_enable"):
        case "0":
            return warn("off: programs are interpreted, so each hit costs more", command)
        case "1":
            return ok("on")
        case "2":
            return warn("on, but every program is dumped to the kernel log", command)
        case _:
            # Absent from this kernel, or from this network namespace.
            return warn("unknown: this kernel or container has no net.core.bpf_jit_enable")


def _has_symbol(name: str, root: str | PathLike[str]) -> bool:
    # Every user can read the names, even where addresses are hidden.
    return f" {name}\n" in f"{_read(f'{root}/proc/kallsyms') or ''}\n"


def _read(path: str) -> str | None:
    """Return a file's text without surrounding white space, None if it cannot be read."""
    try:
        data = read_bytes(path)
        if path.endswith(".gz"):
            data = _gunzip(data)
    except (OSError, EOFError):
        return None
    return data.decode("utf-8", "replace").strip()


def _gunzip(data: bytes) -> bytes:
    # Imported here because only /proc/config.gz, which no usual start reads, is compressed.
    import gzip  # noqa: PLC0415

    try:
        return gzip.decompress(data)
    except zlib.error as error:
        raise EOFError from error
