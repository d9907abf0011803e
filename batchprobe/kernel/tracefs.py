"""tracefs: where it is, and the text of its kprobe files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import compress
from typing import NamedTuple

from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.sys.files import exists, read_text

__all__ = ["Definition", "Tracefs", "parse_events", "profiled"]

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


class Definition(NamedTuple):
    """A line of kprobe_events: what stands where, in which event."""

    is_return: bool
    group: str
    event: str
    location: str


def parse_events(text: str) -> list[Definition]:
    """The lines of kprobe_events."""
    found = []
    for line in text.split("\n"):
        # As in "r4:group/event place arguments"; others are not kprobes.
        head, _, rest = line.partition(" ")
        kind, _, name = head.partition(":")
        group, _, event = name.partition("/")
        if kind[:1] in ("p", "r") and event:
            found.append(Definition(kind[0] == "r", group, event, rest.partition(" ")[0]))
    return found


def profiled(text: str, event: str) -> int:
    """Hits of an event's probes by kprobe_profile, a line a probe, those it missed included."""
    fields = text.split()
    columns = fields[1::3], fields[2::3]
    # In C: there may be thousands of lines, and probes are hit meanwhile.
    return sum(
        sum(map(int, compress(column, map(event.__eq__, fields[::3])))) for column in columns
    )


class Tracefs:
    """A mounted tracefs with kprobe events."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def find(cls) -> Tracefs:
        """The mounted tracefs. Raises UnsupportedError where there is none to use."""
        for root in _PLACES:
            if exists(f"{root}/kprobe_events"):
                return cls(root)
        if any(exists(f"{root}/available_tracers") for root in _PLACES):
            raise UnsupportedError(
                "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)",
                remedy="boot a kernel with kprobes: any stock distribution kernel",
            )
        if os.geteuid() != 0:
            raise UnsupportedError("tracefs cannot be read", remedy="run as root")
        if "\ttracefs\n" not in read_text("/proc/filesystems"):
            raise UnsupportedError(
                "this kernel has no tracefs and so no kprobe events",
                remedy="boot a kernel with kprobes: any stock distribution kernel",
            )
        raise UnsupportedError(
            "tracefs is not mounted", remedy=f"mount -t tracefs nodev {_PLACES[0]}"
        )

    def command(self, line: str) -> None:
        """Write one command to kprobe_events. Raises KernelError with the kernel's errno."""
        with self.commands(line) as command:
            command(line)

    @contextmanager
    def commands(self, what: str = "definitions") -> Iterator[Callable[[str], None]]:
        """What writes one command after another, each as `command` does; `what` they are.

        One write a command: the kernel stops at the first bad line of a longer write without
        saying which it was, and its own work is a hundred times the cost of the call.
        """
        try:
            # Append: opening it to truncate would delete everybody's events.
            fd = os.open(f"{self.root}/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(f"opening kprobe_events: {what}", error.errno or 0) from None

        try:
            yield lambda line: self._write(fd, line)
        finally:
            os.close(fd)

    def _write(self, fd: int, line: str) -> None:
        try:
            os.write(fd, f"{line}\n".encode())
        except OSError as error:
            raise KernelError(f"kprobe_events: {line}", error.errno or 0) from None

    def definitions(self) -> list[Definition]:
        """What kprobe_events lists now. Raises KernelError if it cannot be read."""
        return parse_events(self._read("kprobe_events"))

    def hits(self, event: str) -> int:
        """Hits of an event's probes so far by the kernel's count, those it missed included.

        The event is named without its group. Raises KernelError if it cannot be read.
        """
        return profiled(self._read("kprobe_profile"), event)

    def event_id(self, group: str, event: str) -> int:
        """The number perf_event_open(2) knows a trace event by."""
        return int(self._read(f"events/{group}/{event}/id"))

    def _read(self, name: str) -> str:
        try:
            return read_text(f"{self.root}/{name}")
        except OSError as error:
            raise KernelError(f"reading {name}", error.errno or 0) from None
