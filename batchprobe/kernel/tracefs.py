# SPDX-License-Identifier: Apache-2.0
"""Finds tracefs, and reads and writes its kprobe files."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from operator import add

from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.sys.files import exists, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.kernel.kprobe_events import Definition

__all__ = ["Tracefs", "profiled"]

_MOUNT_POINTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_BUSY_SECONDS = 1.0
_BUSY_STEP = 0.005


def profiled(text: str, event: str, columns: Sequence[int] = (1, 2)) -> list[int]:
    """An event's hits (column 1) and misses (2), as their sum, in kprobe_profile, which has a line
    per probe, in the order in which they were defined.
    """
    fields = text.split()
    ours = list(map(event.__eq__, fields[::3]))
    # No Python loop: there may be thousands of lines, and probes keep firing in the meantime.
    found = [list(map(int, compress(fields[column::3], ours))) for column in columns]
    return found[0] if len(found) == 1 else list(map(add, *found))


class Tracefs:
    """A mounted tracefs; the kernel has kprobe events."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def find(cls) -> Tracefs:
        """Return the mounted tracefs. Raises UnsupportedError if there is none usable."""
        for root in _MOUNT_POINTS:
            if exists(f"{root}/kprobe_events"):
                return cls(root)
        if any(exists(f"{root}/available_tracers") for root in _MOUNT_POINTS):
            raise UnsupportedError(
                "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)",
                remedy="boot a kernel with kprobes: any stock distribution kernel",
            )
        if os.geteuid() != 0:
            raise UnsupportedError("only root can read tracefs", remedy="run it with sudo")
        if "\ttracefs\n" not in read_text("/proc/filesystems"):
            raise UnsupportedError(
                "this kernel has no tracefs, hence no kprobe events",
                remedy="boot a kernel with kprobes: any stock distribution kernel",
            )
        raise UnsupportedError(
            "tracefs is not mounted", remedy=f"mount -t tracefs nodev {_MOUNT_POINTS[0]}"
        )

    @classmethod
    def if_usable(cls) -> Tracefs | None:
        """Return the mounted tracefs; None if there is none that this user may read."""
        try:
            found = cls.find()
        except UnsupportedError:
            return None
        return found if os.access(f"{found.root}/kprobe_events", os.R_OK) else None

    def command(self, line: str) -> None:
        """Write one command to kprobe_events. Raises KernelError with the kernel's errno."""
        with self.commands(line) as write:
            write(line)

    def delete(self, command: str) -> None:
        """Run a command that deletes an event (`-:EVENT`) or one probe of it (`-:EVENT PROBE`).

        A busy event is tried again for a second, and one that is gone already is no error. Raises
        KernelError.
        """
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self.command(command)
            except KernelError as error:
                if error.errno == errno.ENOENT:
                    # It was never defined, or another process removed it.
                    return
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                # A child process between fork and exec still has our perf fd open.
                time.sleep(_BUSY_STEP)
            else:
                return

    @contextmanager
    def commands(self, what: str = "definitions") -> Iterator[Callable[[str], None]]:
        """Open kprobe_events and yield a function that writes one command, as `command` does.

        `what` names the commands in the error if the file cannot be opened. Each command is a
        write of its own: at the first bad line of a longer write, the kernel stops without saying
        which line it was. The kernel's own work costs a hundred times the extra system calls.
        """
        try:
            # O_APPEND: opening with O_TRUNC would delete the events of every tool.
            fd = os.open(f"{self.root}/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(f"opening kprobe_events: {what}", error.errno or 0) from error

        try:
            yield lambda line: self._write(fd, line)
        finally:
            os.close(fd)

    def _write(self, fd: int, line: str) -> None:
        try:
            os.write(fd, f"{line}\n".encode())
        except OSError as error:
            raise KernelError(f"kprobe_events: {line}", error.errno or 0) from error

    def definitions(self) -> list[Definition]:
        """Return all kprobe definitions. Raises KernelError if kprobe_events cannot be read."""
        from batchprobe.kernel.kprobe_events import parse  # noqa: PLC0415  (probes are armed)

        return parse(self._read("kprobe_events"))

    def hits(self, event: str) -> list[int]:
        """Return the kernel's count of hits and misses of each probe of an event, as `profiled`.

        `event` is the name without its group. Raises KernelError if the counts cannot be read.
        """
        return profiled(self._read("kprobe_profile"), event)

    def misses(self, event: str) -> list[int]:
        """As `hits`, of misses alone."""
        return profiled(self._read("kprobe_profile"), event, (2,))

    def event_id(self, group: str, event: str) -> int:
        """Return the event's id for perf_event_open(2). Raises KernelError if there is none."""
        return int(self._read(f"events/{group}/{event}/id"))

    def event_format(self, group: str, event: str) -> str:
        """The layout of an event's records. Raises KernelError if there is none."""
        return self._read(f"events/{group}/{event}/format")

    def _read(self, name: str) -> str:
        try:
            return read_text(f"{self.root}/{name}")
        except OSError as error:
            raise KernelError(f"reading {name}", error.errno or 0) from error
