# SPDX-License-Identifier: Apache-2.0
"""What is known of the processes of a tree, from the kernel's messages and from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike

from batchprobe.sys.files import read_text

__all__ = ["Family", "Followed"]

_MOST = 10_000
_SIGNALLED = 128
_ZOMBIE, _DEAD = "Z", "X"


class Followed:
    """A process. `comm` is its last name, empty if it ended too soon for that to be read. `status`
    is its exit status as a shell gives it; None while it runs, or if nobody saw its end.
    """

    __slots__ = ("comm", "has_ended", "parent", "pid", "status")

    def __init__(
        self,
        pid: int,
        parent: int,
        comm: str,
        *,
        has_ended: bool = False,
        status: int | None = None,
    ) -> None:
        self.pid = pid
        self.parent = parent
        self.comm = comm
        self.has_ended = has_ended
        self.status = status

    def __repr__(self) -> str:
        state = f"ended {self.status}" if self.has_ended else "runs"
        return f"Followed({self.pid}, parent {self.parent}, {self.comm!r}, {state})"


class Family:
    """Processes and their descendants, the first `most` of them. The rest is counted only."""

    def __init__(
        self, roots: Iterable[int] = (), *, most: int = _MOST, proc: str | PathLike[str] = "/proc"
    ) -> None:
        """Nothing is known of `roots` until the first `look`."""
        self.not_kept = 0
        """Processes that were seen and not kept."""
        self._roots = set(roots)
        self._most = most
        self._proc = os.fspath(proc)
        self._kept: list[Followed] = []
        # The last one with each number. One that ended stays until its number is given away: it may
        # have threads, and these may have children.
        self._by_pid: dict[int, Followed] = {}
        # Those that run and are not kept.
        self._others: set[int] = set()
        self._looked = False

    def processes(self) -> list[Followed]:
        """Copies of all that are kept, in the order in which they were first seen."""
        return [
            Followed(one.pid, one.parent, one.comm, has_ended=one.has_ended, status=one.status)
            for one in self._kept
        ]

    def add_root(self, pid: int) -> None:
        """One more root; what it began so far is looked for, if `look` was called before."""
        self._roots.add(pid)
        if self._looked:
            self.look()

    # -- messages of the kernel ----------------------------------------------------------------

    def forked(self, parent: int, child: int) -> None:
        """A process has begun."""
        known = self._by_pid.get(child)
        if known is not None and not known.has_ended and known.parent == parent:
            # A look in /proc was quicker than the message.
            return
        if child in self._others and parent in self._others:
            return
        # Its number was another's before.
        self._by_pid.pop(child, None)
        self._others.discard(child)
        if parent in self._by_pid:
            self._add(child, parent, self._by_pid[parent].comm)
        elif parent in self._others:
            self._add(child, parent, "")

    def executed(self, pid: int) -> None:
        """A process runs another program now."""
        process = self._by_pid.get(pid)
        if process is None:
            return
        # A thread that executes a program ends the others, the first one included, and goes on
        # under its number (de_thread(), fs/exec.c).
        process.has_ended, process.status = False, None
        process.comm = self._comm(pid)

    def renamed(self, pid: int) -> None:
        """A process has given itself another name."""
        process = self._by_pid.get(pid)
        if process is not None and (comm := self._comm(pid)):
            process.comm = comm

    def exited(self, thread: int, pid: int, code: int) -> None:
        """A thread has ended; `code` is as wait(2) reports it."""
        process = self._by_pid.get(pid)
        # The first thread's code is the process's, but if it ended before the others.
        if process is not None and (thread == pid or process.has_ended):
            process.has_ended, process.status = True, _shell_status(code)
        elif thread == pid:
            self._others.discard(pid)

    # -- /proc -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Read from /proc what is not known from messages."""
        self._looked = True
        found = dict(self._running())
        children: dict[int, list[int]] = {}
        for pid, (parent, _, _) in found.items():
            children.setdefault(parent, []).append(pid)
        for process in self._by_pid.values():
            if not process.has_ended and process.pid not in found:
                process.has_ended = True
        self._others &= found.keys()
        for pid in sorted(self._roots - self._by_pid.keys() - self._others):
            parent, comm, _ = found.get(pid, (0, "", None))
            self._add(pid, parent, comm, has_ended=pid not in found)
        # Later its number may be another's.
        self._roots.clear()
        tree = [*self._others, *(pid for pid, one in self._by_pid.items() if not one.has_ended)]
        for parent in tree:
            for pid in children.get(parent, ()):
                known = self._by_pid.get(pid)
                if pid not in self._others and (known is None or known.has_ended):
                    self._add(pid, parent, found[pid][1])
                    tree.append(pid)
        for pid, (_, _, code) in found.items():
            zombie = self._by_pid.get(pid)
            if code is not None and zombie is not None and zombie.status is None:
                zombie.has_ended = True
                # Others read 0 (do_task_stat(), fs/proc/array.c).
                zombie.status = _shell_status(code) if os.geteuid() == 0 else None

    def _add(self, pid: int, parent: int, comm: str, *, has_ended: bool = False) -> None:
        if len(self._kept) < self._most:
            process = self._by_pid[pid] = Followed(pid, parent, comm, has_ended=has_ended)
            self._kept.append(process)
        else:
            self._others.add(pid)
            self.not_kept += 1

    def _running(self) -> Iterable[tuple[int, tuple[int, str, int | None]]]:
        """The processes in /proc by number: parent, name, and for one that ended and was not waited
        for, its code.
        """
        for name in os.listdir(self._proc):
            if not name.isdigit():
                continue
            try:
                stat = read_text(f"{self._proc}/{name}/stat")
            except OSError:
                # It has ended meanwhile.
                continue
            # A name may have blanks and parentheses.
            before, _, after = stat.rpartition(")")
            fields = after.split()
            code = int(fields[-1]) if fields[0] in {_ZOMBIE, _DEAD} else None
            yield int(name), (int(fields[1]), before.partition("(")[2], code)

    def _comm(self, pid: int) -> str:
        try:
            return read_text(f"{self._proc}/{pid}/comm").removesuffix("\n")
        except OSError:
            # It has ended, and was waited for.
            return ""


def _shell_status(code: int) -> int:
    """The exit status that a shell gives for what wait(2) reports."""
    number = code & 0x7F
    return _SIGNALLED + number if number else code >> 8 & 0xFF
