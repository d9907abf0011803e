"""Who owns a trace event or a share of the RCU knob: a process, named so that reuse is seen."""

from __future__ import annotations

import os
from typing import NamedTuple

from batchprobe.sys.files import read_text

__all__ = ["Owner"]

# PROC_PID_INIT_INO, include/linux/proc_ns.h
_INITIAL_NAMESPACE = 0xEFFFFFFC
_NAME = "batchprobe"


class Owner(NamedTuple):
    """A process: its number, its start time (clock ticks since boot), its PID namespace."""

    pid: int
    start: int
    namespace: int

    @classmethod
    def this_process(cls) -> Owner:
        pid = os.getpid()
        return cls(pid, _start_time(pid) or 0, _namespace())

    @classmethod
    def from_group(cls, group: str) -> Owner | None:
        """The owner of an event group of batchprobe's, None for anybody else's group."""
        name, *numbers = group.split("_")
        if name != _NAME or len(numbers) != len(cls._fields):
            return None
        # int() takes more than the names that we give.
        return cls(*map(int, numbers)) if all(map(_is_number, numbers)) else None

    @property
    def group(self) -> str:
        """The name of this owner's event group."""
        return f"{_NAME}_{self.pid}_{self.start}_{self.namespace}"

    @property
    def is_dead(self) -> bool:
        """Whether the process is gone for certain.

        Of another PID namespace only the initial one can know: it sees every process.
        """
        here = _namespace()
        if self.namespace == here:
            return _start_time(self.pid) != self.start
        return here == _INITIAL_NAMESPACE and not _lives(self.pid, self.namespace)


def _start_time(pid: int) -> int | None:
    try:
        stat = read_text(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, with any character in it; starttime is 22nd.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _lives(pid: int, namespace: int) -> bool:
    """Whether a process has this number in that namespace, or may have it."""
    for process in filter(_is_number, os.listdir("/proc")):
        try:
            # Its number in each namespace it is in, from ours to its own (Linux 4.1).
            numbers = read_text(f"/proc/{process}/status").partition("\nNSpid:")[2].split("\n")[0]
            inner = numbers.split()[1:]
            if inner and int(inner[-1]) == pid and _is_in(process, namespace):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile
    return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_in(process: str, namespace: int) -> bool:
    try:
        inside = os.stat(f"/proc/{process}/ns/pid").st_ino == namespace
    except PermissionError:
        # It has more rights than we: it may be.
        inside = True
    return inside and _start_time(int(process)) is not None
