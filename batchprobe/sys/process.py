# SPDX-License-Identifier: Apache-2.0
"""Identifies processes so that a reused PID is recognized."""

from __future__ import annotations

import os

from batchprobe.sys.files import read_text

__all__ = ["Owner", "set_name"]

# PROC_PID_INIT_INO, include/linux/proc_ns.h
_INITIAL_NAMESPACE = 0xEFFFFFFC
_NAME = "batchprobe"
_NUMBERS = 3


class Owner:
    """The process that owns a trace event or holds rcu_expedited.

    `pid` is valid in the PID namespace with inode number `namespace`; `start` is the process's
    start time in clock ticks since boot (proc_pid_stat(5)).
    """

    def __init__(self, pid: int, start: int, namespace: int) -> None:
        self.pid = pid
        self.start = start
        self.namespace = namespace

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Owner) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.pid, self.start, self.namespace))

    @classmethod
    def this_process(cls) -> Owner:
        """The calling process."""
        pid = os.getpid()
        return cls(pid, _start_time(pid) or 0, _namespace())

    @classmethod
    def from_group(cls, group: str) -> Owner | None:
        """The owner named by a trace event group; None if batchprobe did not name the group."""
        name, *numbers = group.split("_")
        if name != _NAME or len(numbers) != _NUMBERS:
            return None
        # int() alone would accept signs and spaces too.
        return cls(*map(int, numbers)) if all(map(_is_number, numbers)) else None

    @property
    def group(self) -> str:
        """The name of this owner's trace event group."""
        return f"{_NAME}_{self.pid}_{self.start}_{self.namespace}"

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone; a zombie counts as gone.

        A process of another PID namespace is known to be gone only to the initial namespace, which
        sees every process.
        """
        here = _namespace()
        if self.namespace == here:
            return _start_time(self.pid) != self.start
        return here == _INITIAL_NAMESPACE and not _may_live(self.pid, self.namespace)


def set_name(name: str) -> None:
    """Name this process, as ps and killall show it. Raises OSError."""
    # The kernel cuts it to 15 bytes (comm_write(), fs/proc/base.c).
    with open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(os.fsencode(name))


def _start_time(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = read_text(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 2 is the command in parentheses, which may contain any character; starttime is field 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _may_live(pid: int, namespace: int) -> bool:
    """Whether some process has, or may have, this PID in that namespace."""
    for process in filter(_is_number, os.listdir("/proc")):
        try:
            # NSpid lists the PID in each namespace, from ours to the process's own (Linux 4.1).
            numbers = read_text(f"/proc/{process}/status").partition("\nNSpid:")[2].split("\n")[0]
            inner = numbers.split()[1:]
            if inner and int(inner[-1]) == pid and _may_be_in(process, namespace):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return False


def _may_be_in(process: str, namespace: int) -> bool:
    try:
        inside = os.stat(f"/proc/{process}/ns/pid").st_ino == namespace
    except PermissionError:
        # A process with more privileges than ours: assume that it is.
        inside = True
    return inside and _start_time(int(process)) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
