# SPDX-License-Identifier: Apache-2.0
"""Whose hits count: from the options to filters, and the processes that end a run."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Self, TypeVar

from batchprobe._util.counted import counted
from batchprobe.cli.args import SCOPE, AttachOptions
from batchprobe.errors import UsageError
from batchprobe.filters.children import Children
from batchprobe.filters.scope import ScopeFilter
from batchprobe.sys.files import read_text

__all__ = ["Scope"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.cli.followed import FollowedProcesses

_T = TypeVar("_T")
# To import pyroute2, and for the kernel to take us as a listener.
_LISTEN_SECONDS = 10.0
_MOST_REPORTED = 50


class Scope:
    """The filters that the options ask for, and the process with which the run ends.

    Raises UsageError for options that cannot be meant.
    """

    def __init__(self, options: AttachOptions) -> None:
        _refuse_contradictions(options)
        self._options = options
        self._followed: FollowedProcesses | None = None
        # First, so that the number cannot come to mean another process.
        self.ends = [_pidfd(options.pid[0])] if options.pid else []
        """Descriptors, readable when the run is over: that of the first process of -p."""
        self._children = Children() if options.follows else None
        try:
            self.filters: list[ScopeFilter] = list(_filters(options))
        except BaseException:
            self.close()
            raise
        if self._children is not None:
            self.filters.append(self._children)

    def is_over(self) -> bool:
        """Whether the process with which the run ends has ended."""
        return bool(self.ends and select.select(self.ends, [], [], 0)[0])

    def watch(self) -> None:
        """Begin to note names and exit statuses of the processes that are followed, for -v."""
        if not (self._options.verbose and self._options.follows):
            return
        from batchprobe.cli.followed import FollowedProcesses  # noqa: PLC0415  (only with -v)

        self._followed = FollowedProcesses(self._options.pid)
        self._followed.wait(_LISTEN_SECONDS)

    def started(self, pid: int) -> None:
        """A command was started."""
        if self._followed is not None:
            self._followed.follow(pid)

    def report(self) -> Iterator[str]:
        """Which processes were followed, in sentences."""
        if self._followed is None:
            return
        self._followed.close()
        if self._followed.unavailable:
            yield self._followed.unavailable
            return
        found = self._followed.processes()
        yield f"{counted(len(found) + self._followed.not_kept, 'process', 'processes')} followed"
        for one in found[:_MOST_REPORTED]:
            name = one.comm or "(ended before its name could be read)"
            end = f"exit status {one.status}" if one.has_ended else "still running"
            yield f"  {one.pid} {name}, child of {one.parent}: {end}"
        if found[_MOST_REPORTED:]:
            yield f"  and {len(found) - _MOST_REPORTED} more"
        if self._options.tid:
            # The kernel's messages do not say which thread started another one.
            yield "those that a thread of --tid started are not among them"
        if self._followed.overruns:
            yield "some may be missing: the kernel reported more of them than could be read"

    def spawning(self) -> AbstractContextManager[None]:
        """What starts in the block is followed, if anything is."""
        return self._children.spawning() if self._children is not None else nullcontext()

    @property
    def lost(self) -> int:
        """Threads that could not be followed."""
        return self._children.lost if self._children is not None else 0

    def close(self) -> None:
        """Close the descriptors."""
        if self._followed is not None:
            self._followed.close()
        while self.ends:
            os.close(self.ends.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _refuse_contradictions(options: AttachOptions) -> None:
    processes = [flag for flag in ("pid", "tid") if getattr(options, flag)]
    if options.children and not processes:
        whose = "whose? Name a process with -p"
        if options.command is not None:
            whose = "leave it out: -c always includes them"
        raise UsageError(f"--children: {whose}")
    if options.all_processes and any(getattr(options, field) for field in SCOPE):
        raise UsageError("--all counts the whole machine: leave out the options that narrow that")
    if processes and options.command is not None:
        raise UsageError(f"-c counts the hits of its command: leave out --{processes[0]}")
    for pid in options.pid:
        if _process_of(pid) is None:
            raise UsageError(f"--pid {pid}: no such process")
        if _process_of(pid) != pid:
            raise UsageError(f"--pid {pid}: that is a thread of {_process_of(pid)}; use --tid")
    for tid in options.tid:
        if _process_of(tid) is None:
            raise UsageError(f"--tid {tid}: no such thread")


def _process_of(tid: int) -> int | None:
    """The process that a thread belongs to; None if there is no such thread."""
    try:
        status = read_text(f"/proc/{tid}/status")
    except OSError:
        return None
    return int(status.partition("\nTgid:")[2].split()[0])


def _filters(options: AttachOptions) -> Iterator[ScopeFilter]:
    # Each is imported only where it is asked for.
    if options.pid or options.tid:
        from batchprobe.filters.pid import Pid, Tid  # noqa: PLC0415

        if options.pid:
            yield Pid(*options.pid)
        if options.tid:
            yield Tid(*options.tid)
    if options.comm:
        from batchprobe.filters.comm import Comm  # noqa: PLC0415

        yield _meant("--comm", options.comm, lambda: Comm(*options.comm))
    if options.uid:
        from batchprobe.filters.uid import Uid  # noqa: PLC0415

        users = list(map(_user, options.uid))
        yield _meant("--uid", options.uid, lambda: Uid(*users))
    if cpu := options.cpu:
        from batchprobe.filters.cpu import Cpu  # noqa: PLC0415

        yield _meant("--cpu", [cpu], lambda: Cpu.of(cpu))
    if options.cgroup or options.unit:
        from batchprobe.filters.cgroup import Cgroup, unit_cgroup  # noqa: PLC0415

        units = [_meant("--unit", [unit], partial(unit_cgroup, unit)) for unit in options.unit]
        paths = [*options.cgroup, *units]
        yield _meant("--cgroup", options.cgroup or options.unit, lambda: Cgroup(*paths))
    if options.netns:
        from batchprobe.filters.netns import NetNamespace  # noqa: PLC0415
        from batchprobe.kernel.netns import netns_inode  # noqa: PLC0415

        yield NetNamespace(*map(netns_inode, options.netns))


def _meant(flag: str, words: Sequence[str], make: Callable[[], _T]) -> _T:
    """What `make` returns; its ValueError is about these words of the command line."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(f"{flag} {' '.join(words)}: {error}") from error


def _user(text: str) -> int:
    if text.isdecimal():
        return int(text)
    import pwd  # noqa: PLC0415  (few name a user)

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageError(f"--uid {text}: no such user") from None


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise UsageError(f"--pid {pid}: no such process") from None
