# SPDX-License-Identifier: Apache-2.0
"""The kernel's probes on functions of system calls, read without batchprobe."""

from __future__ import annotations

import ctypes
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from batchprobe import arch
from helpers.machine import PREFIX, TRACEFS

__all__ = ["Bundle", "Kprobe", "Objects", "objects", "programs"]

KPROBES = Path("/sys/kernel/debug/kprobes/list")
# An entry probe stands within this many bytes of its function's start.
ENTRY_SIZE = 24

# include/uapi/linux/bpf.h
PROG_GET_NEXT_ID = 11
OBJ_GET_INFO_BY_FD = 15
LINK_GET_FD_BY_ID = 30
LINK_GET_NEXT_ID = 31
LINK_TYPE_PERF_EVENT = 7
LINK_TYPE_KPROBE_MULTI = 8
MULTI_RETURN = 1
MOST_IN_A_LINK = 1024


@dataclass(frozen=True, order=True)
class Kprobe:
    """A line of kprobes/list: a kprobe on a system call."""

    call: str
    is_return: bool
    # At the function's entry, through ftrace; otherwise a breakpoint after the patch site.
    is_ftrace: bool


@dataclass(frozen=True)
class Bundle:
    """The probes of one trace event or link."""

    is_return: bool
    calls: tuple[str, ...]


@dataclass(frozen=True)
class Objects:
    """All probes and their kernel objects, of any owner."""

    # All armed: none is disabled or gone.
    kprobes: Counter[Kprobe]
    # Trace events of batchprobe's groups, by name.
    events: dict[str, Bundle]
    # Links, and the id of each, by the id of its program.
    links: dict[int, Bundle]
    link_ids: dict[int, int]
    # The number of ftrace users of each function.
    users: Counter[str]


class _Ids(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_uint32),
        ("next", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class _Info(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


class _LinkInfo(ctypes.Structure):
    """struct bpf_link_info, with its kprobe_multi members (Linux 6.6)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("addrs", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("missed", ctypes.c_uint64),
    )


def objects() -> Objects:
    """Read all of them."""
    links = list(_links())
    assert len({info.prog_id for info, _ in links}) == len(links), "two links share a program"
    return Objects(
        kprobes=Counter(_kprobes()),
        events=_events(),
        links={info.prog_id: bundle for info, bundle in links},
        link_ids={info.prog_id: info.id for info, _ in links},
        users=_users(),
    )


def programs() -> frozenset[int]:
    """The ids of all BPF programs."""
    return frozenset(_ids(PROG_GET_NEXT_ID))


@cache
def _addresses() -> dict[str, int]:
    """The start addresses of system call functions, and of the kernel's text."""
    found = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, _, name = line.split()[:3]
        if name.startswith(PREFIX) or name in ("_text", "_stext"):
            found[name.removeprefix(PREFIX)] = int(address, 16)
    return found


def _call_at(address: int) -> str:
    """The system call whose function starts here or shortly before."""
    for call, start in _addresses().items():
        if start <= address < start + ENTRY_SIZE:
            return call
    return f"{address:#x}"


def _kprobes() -> Iterator[Kprobe]:
    for line in KPROBES.read_text().splitlines():
        address, kind, *_ = line.split()
        flags = set(re.findall(r"\[([A-Z]+)\]", line)) - {"OPTIMIZED"}
        assert flags <= {"FTRACE"}, line
        yield Kprobe(_call_at(int(address, 16)), kind == "r", bool(flags))


def _events() -> dict[str, Bundle]:
    found: dict[tuple[str, bool], list[str]] = {}
    for line in (TRACEFS / "kprobe_events").read_text().splitlines():
        if ":batchprobe_" in line:
            parts = re.fullmatch(r"([pr])\d*:(\w+/\w+) (_s?text)\+(\w+)", line)
            assert parts, line
            kind, name, anchor, offset = parts.groups()
            calls = found.setdefault((name, kind == "r"), [])
            calls.append(_call_at(_addresses()[anchor] + int(offset, 0)))
    return {name: _bundle(is_return, calls) for (name, is_return), calls in found.items()}


def _bundle(is_return: bool, calls: Iterable[str]) -> Bundle:
    return Bundle(is_return, tuple(sorted(calls)))


def _users() -> Counter[str]:
    text = (TRACEFS / "enabled_functions").read_text()
    found = re.findall(rf"^{PREFIX}(\S+) \((\d+)\)", text, re.MULTILINE)
    return Counter({call: int(count) for call, count in found})


def _bpf(command: int, attr: ctypes.Structure) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(
        ctypes.c_long(arch.current().syscalls.bpf),
        ctypes.c_long(command),
        ctypes.byref(attr),
        ctypes.c_ulong(ctypes.sizeof(attr)),
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return result


def _ids(command: int) -> Iterator[int]:
    attr = _Ids()
    while True:
        try:
            _bpf(command, attr)
        except FileNotFoundError:  # no more ids
            return
        yield attr.next
        attr.start = attr.next


def _links() -> Iterator[tuple[_LinkInfo, Bundle]]:
    """The links of many functions. A perf kprobe may have one of its own, and is in `_kprobes`."""
    for number in list(_ids(LINK_GET_NEXT_ID)):
        fd = _bpf(LINK_GET_FD_BY_ID, _Ids(start=number))
        try:
            # Without a buffer, which would mean something else to a link of another type.
            kind = _link_info(fd, _LinkInfo()).type
            if kind == LINK_TYPE_PERF_EVENT:
                continue
            assert kind == LINK_TYPE_KPROBE_MULTI, f"a link of type {kind}"
            addresses = (ctypes.c_uint64 * MOST_IN_A_LINK)()
            buffer = _LinkInfo(addrs=ctypes.addressof(addresses), count=MOST_IN_A_LINK)
            info = _link_info(fd, buffer)
        finally:
            os.close(fd)
        yield info, _bundle(info.flags & MULTI_RETURN != 0, map(_call_at, addresses[: info.count]))


def _link_info(fd: int, info: _LinkInfo) -> _LinkInfo:
    at = ctypes.addressof(info)
    _bpf(OBJ_GET_INFO_BY_FD, _Info(fd=fd, size=ctypes.sizeof(info), info=at))
    return info
