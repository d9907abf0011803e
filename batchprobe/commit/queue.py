# SPDX-License-Identifier: Apache-2.0
"""The commit queue: detached probes wait here until one barrier covers them all.

This is unregister_kprobes() (kernel/kprobes.c) for user space: a top half for each probe (`add`
closes its gate), one barrier for all of them, then a bottom half for each kernel object.

Group commit. Detached probes collect in the open batch. A commit notes the open batch and waits for
the commit lock. The first to get it *seals* the batch: it opens a new one, and only then begins the
barrier. So the barrier covers everything queued before it began; later probes are in the next
batch. Other commits that noted the batch find it done when they get the lock, and return the same
report. If the barrier fails, the batch *joins* the open one: its probes are queued again in front,
and commits that noted it follow `joined`.

Lock order: `_commit_lock`, held for a whole commit, then the lock of the live probes, then `_lock`,
held for moments. The callbacks of a commit run without `_lock`, so they may take that of the live
probes. A top half runs under `_lock` and must take no other lock. `_lock` is reentrant, because a
signal handler may detach while the thread it interrupted holds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from threading import RLock, get_ident

from batchprobe.errors import KernelError, SessionError

__all__ = [
    "CommitQueue",
    "CommitReport",
    "Item",
    "Reclaimable",
    "Reclaimed",
    "Remains",
    "RemovalFailure",
]


class RemovalFailure:
    """A kernel object that could not be removed; the next commit tries again.

    `what` is the object and the error, in words; `errno` is 0 if no system call failed.
    """

    __slots__ = ("errno", "what")

    def __init__(self, what: str, errno: int) -> None:
        self.what = what
        self.errno = errno

    def __repr__(self) -> str:
        return f"RemovalFailure({self.what!r}, {self.errno})"


class Remains:
    """What is to be removed of kernel objects without probes: descriptors to close, of perf events
    and links, and then commands for kprobe_events.
    """

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.commands: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be removed."""
        return not self.fds and not self.commands


class Reclaimed:
    """The outcome of one `Reclaimable.reclaim`, in probes: `clean` are those whose kernel object
    still carries live ones, `dirty` those that were the last ones of theirs, which was removed.
    """

    __slots__ = ("clean", "dirty", "failed")

    def __init__(
        self, *, clean: int = 0, dirty: int = 0, failed: tuple[RemovalFailure, ...] = ()
    ) -> None:
        self.clean = clean
        self.dirty = dirty
        self.failed = failed


class CommitReport:
    """The outcome of one commit: numbers of probes and barriers, times in seconds.

    `barriers` counts the waits before the counts were final; waits of the reclaim are part of its
    time. `handed_over` are probes whose kernel objects another process went on to remove. Commits
    that share a batch return the same report.
    """

    def __init__(
        self,
        *,
        probes: int = 0,
        clean: int = 0,
        dirty: int = 0,
        barriers: int = 0,
        top_seconds: float = 0.0,
        barrier_seconds: float = 0.0,
        reclaim_seconds: float = 0.0,
        failed: tuple[RemovalFailure, ...] = (),
        handed_over: int = 0,
    ) -> None:
        self.probes = probes
        self.clean = clean
        self.dirty = dirty
        self.barriers = barriers
        self.top_seconds = top_seconds
        self.barrier_seconds = barrier_seconds
        self.reclaim_seconds = reclaim_seconds
        self.failed = failed
        self.handed_over = handed_over

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommitReport) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return f"CommitReport({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    OnFinal = Callable[[], None] | None
    """Called when the results are final, before the reclaim."""
    Wait = bool | Callable[[], bool]
    """Whether a commit waits for its reclaim; a function is asked again and again meanwhile."""

    class Reclaimable(Protocol):
        """A kernel object, or several (link, trace event, perf events), that carries probes."""

        def takes_long(self, gone: Sequence[Any]) -> bool:
            """Whether the reclaim of these probes is too slow to wait for."""
            ...

        def reclaim(self, gone: Sequence[Any], remains: Remains | None = None) -> Reclaimed:
            """The bottom half: remove what only these probes needed; none of their handlers runs.

            With `remains`, what takes the kernel time is put there instead. If the kernel refuses,
            returns that in `failed`; the next call then gets no probes. If this raises, the next
            call gets the same probes again.
            """
            ...

    class Item(Protocol):
        """The part of a probe that the queue uses."""

        @property
        def attachment(self) -> Reclaimable | None:
            """The attachment that carries the probe."""
            ...

else:
    Reclaimable = Item = object


class _Batch:
    """Items that one barrier covers."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.top_seconds = 0.0
        # Set when the batch is done.
        self.report: CommitReport | None = None
        # The batch that took over the items, if the barrier failed.
        self.joined: _Batch | None = None


class _Unreclaimed:
    """Items that an attachment has yet to reclaim; none if only a refused removal is left."""

    def __init__(self, attachment: Reclaimable, gone: Sequence[Item] = ()) -> None:
        self.attachment = attachment
        self.gone = list(gone)


class CommitQueue:
    """Detached items wait here for a commit. Any thread may queue, and any thread may commit.

    `barrier` waits, and returns the number of waits. `finalize` is given the items that it covers;
    if it raises, they are queued again. `expedited_grace_periods` is a context around barrier and
    reclaim. `restore` retries what could not be undone on leaving it, and returns the error if that
    fails again; each commit calls it until it succeeds. `remove` removes remains, or has another
    process do it and waits as long as it is told to; returns what failed, which stays in the
    remains, and whether the other process goes on.
    """

    def __init__(
        self,
        *,
        barrier: Callable[[], int],
        expedited_grace_periods: Callable[[], AbstractContextManager[None]],
        finalize: Callable[[Sequence[Any]], None],
        restore: Callable[[], KernelError | None] = lambda: None,
        remove: Callable[[Remains, Wait], tuple[list[RemovalFailure], bool]],
    ) -> None:
        self._barrier = barrier
        self._expedited_grace_periods = expedited_grace_periods
        self._finalize = finalize
        self._restore = restore
        self._remove = remove
        self._commit_lock = RLock()
        self._committing_thread = 0
        # Protects the open batch.
        self._lock = RLock()
        self._open: _Batch = _Batch()
        # By id() of the attachment. Changed under the commit lock only.
        self._unreclaimed: dict[int, _Unreclaimed] = {}
        self._remains = Remains()
        self._is_removing = False

    def add(self, items: Iterable[Item], top: Callable[[], None]) -> None:
        """Run the top half of `items` and queue them, in one step for every commit.

        If `top` raises, nothing is queued.
        """
        with self._lock:
            start = time.perf_counter()
            top()
            self._open.top_seconds += time.perf_counter() - start
            self._open.items.extend(items)

    @property
    def commits_here(self) -> bool:
        """Whether this thread is inside a commit: in a callback of it, or in a signal handler."""
        return self._committing_thread == get_ident()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued and nothing is left to reclaim."""
        has_remains = self._is_removing or not self._remains.is_empty
        return not (self._open.items or self._unreclaimed or has_remains)

    def commit(self, on_final: OnFinal = None, wait: Wait = True) -> CommitReport:
        """Wait until all queued items are final, then reclaim them.

        `on_final` is called in between, when their counters no longer change. An empty queue costs
        no barrier, but commits of other threads that have begun are waited for. Unless `wait` is
        True, a reclaim that takes long, or that `wait` does not wait for, goes to another process.

        Raises KernelError if the barrier fails: nothing is reclaimed then, and all items stay
        queued. Raises SessionError inside another commit of this thread. An error of `on_final` or
        of an attachment is raised after the reclaim; the attachment is tried again by the next
        commit.
        """
        if self.commits_here:
            raise SessionError("a commit cannot run inside another commit of the same thread")
        with self._lock:
            batch = self._open
        with self._commit_lock:
            self._committing_thread = get_ident()
            try:
                return self._commit_batch(batch, on_final, wait)
            finally:
                self._committing_thread = 0

    def discard(self, attachments: Iterable[tuple[Reclaimable, Sequence[Item]]]) -> None:
        """Reclaim attachments whose results nobody will read, which needs no barrier.

        The next commit tries again what cannot be removed. Raises the first error that an
        attachment raised.
        """
        errors: list[BaseException] = []
        with self._commit_lock:
            # A callback of the reclaim may not commit either.
            self._committing_thread = get_ident()
            try:
                for attachment, gone in attachments:
                    self._unreclaimed[id(attachment)] = _Unreclaimed(attachment, gone)
                if self._unreclaimed:
                    with self._expedited_grace_periods():
                        self._reclaim((), errors, wait=True)
            finally:
                self._committing_thread = 0
        if errors:
            raise errors[0]

    def _commit_batch(self, batch: _Batch, on_final: OnFinal, wait: Wait) -> CommitReport:
        while batch.joined is not None:
            batch = batch.joined
        if batch.report is not None:
            # The barrier of another thread covered it.
            if on_final is not None:
                on_final()
            return batch.report
        if self.is_idle:
            return CommitReport(failed=tuple(self._restore_failures()))
        began = time.perf_counter()
        errors: list[BaseException] = []
        with self._expedited_grace_periods():
            with self._lock:
                # Seal it. Only the holder of the commit lock replaces `_open`, so an unfinished
                # `batch` is still the open one.
                self._open = _Batch()
            barriers = self._finalize_batch(batch)
            final = time.perf_counter()
            if on_final is not None:
                try:
                    on_final()
                except BaseException as error:
                    errors.append(error)
            reclaim_began = time.perf_counter()
            clean, dirty, failed, handed_over = self._reclaim(batch.items, errors, wait)
        failed += self._restore_failures()
        batch.report = CommitReport(
            probes=len(batch.items),
            clean=clean,
            dirty=dirty,
            barriers=barriers,
            top_seconds=batch.top_seconds,
            barrier_seconds=final - began,
            reclaim_seconds=time.perf_counter() - reclaim_began,
            failed=tuple(failed),
            handed_over=handed_over,
        )
        if errors:
            raise errors[0]
        return batch.report

    def _restore_failures(self) -> list[RemovalFailure]:
        error = self._restore()
        return [RemovalFailure(str(error), error.errno)] if error else []

    def _finalize_batch(self, batch: _Batch) -> int:
        """Wait for the barrier and finalize a sealed batch, or join it to the open one."""
        try:
            barriers = self._barrier() if batch.items else 0
            self._finalize(batch.items)
        except BaseException:
            with self._lock:
                batch.joined = self._open
                batch.joined.items[:0] = batch.items
                batch.joined.top_seconds += batch.top_seconds
            raise
        return barriers

    def _reclaim(
        self, items: Sequence[Item], errors: list[BaseException], wait: Wait
    ) -> tuple[int, int, list[RemovalFailure], int]:
        """Run all bottom halves that are due; returns clean and dirty items, failures, and the
        number of items that were handed over.

        An attachment that fails stays due and does not keep the others from their turn.
        """
        # Up to 40,000 items, which usually come in long runs of one attachment.
        for attachment, gone in groupby(items, lambda item: item.attachment):
            if attachment is not None:
                due = self._unreclaimed.setdefault(id(attachment), _Unreclaimed(attachment))
                due.gone.extend(gone)
        hands_over = wait is not True and (
            not wait or not wait() or any(map(_takes_long, self._unreclaimed.values()))
        )
        remains = self._remains if hands_over else None
        clean = dirty = 0
        failed: list[RemovalFailure] = []
        for key, due in list(self._unreclaimed.items()):
            try:
                outcome = due.attachment.reclaim(due.gone, remains)
            except BaseException as error:
                errors.append(error)
                failed.append(RemovalFailure(f"reclaiming {len(due.gone)} probes: {error!r}", 0))
                continue
            clean += outcome.clean
            dirty += outcome.dirty
            if outcome.failed:
                failed.extend(outcome.failed)
                due.gone = []
            else:
                del self._unreclaimed[key]
        goes_on = False
        if not self._remains.is_empty:
            self._is_removing = True
            try:
                refused, goes_on = self._remove(self._remains, wait if hands_over else True)
            finally:
                self._is_removing = False
            failed.extend(refused)
        return clean, dirty, failed, (clean + dirty) * goes_on


def _takes_long(due: _Unreclaimed) -> bool:
    return due.attachment.takes_long(due.gone)
