"""The queue and the commit: take probes out of service at once, wait once, then reclaim.

This is the kernel's unregister_kprobes() for user space: a top half for each probe (its gate
closes, done by `detach`), one barrier for all of them, a bottom half for each kernel object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from batchprobe.errors import KernelError, SessionError

if TYPE_CHECKING:

    class Carrier(Protocol):
        """A kernel object (link, trace event, perf events) that carries probes."""

        def reclaim(self, gone: Sequence[Any]) -> Reclaimed:
            """The bottom half: these probes are quiet; remove what only they needed.

            A refusal of the kernel's is `left`, not an error. Called again after a reclaim that
            left something, with no probes, and after one that raised, with the same.
            """
            ...

    class Item(Protocol):
        """What the queue knows of a probe."""

        @property
        def carrier(self) -> Carrier | None:
            """The kernel object that carries it."""
            ...


__all__ = ["CommitQueue", "CommitReport", "Left", "Reclaimed"]


class Left(NamedTuple):
    """A kernel object that could not be removed; a later commit tries again."""

    what: str
    errno: int


class Reclaimed(NamedTuple):
    """What became of the probes of one carrier."""

    # The kernel object still carries live probes.
    clean: int = 0
    # The last live probe of its kernel object went, and the object with it.
    dirty: int = 0
    left: tuple[Left, ...] = ()


class CommitReport(NamedTuple):
    """What one commit did. Times are in seconds.

    `barriers` is what was waited for before the counts were final; the waits of the reclaim are in
    its time. Commits that shared one batch get the same report.
    """

    probes: int = 0
    clean: int = 0
    dirty: int = 0
    barriers: int = 0
    top_seconds: float = 0.0
    barrier_seconds: float = 0.0
    reclaim_seconds: float = 0.0
    left: tuple[Left, ...] = ()


class _Batch:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.top_seconds = 0.0
        self.report: CommitReport | None = None
        # The batch its items went to when its barrier failed.
        self.joined: _Batch | None = None


class _Debt:
    """What a carrier has still to reclaim."""

    def __init__(self, carrier: Carrier, gone: Sequence[Item] = ()) -> None:
        self.carrier = carrier
        self.gone = list(gone)


class CommitQueue:
    """Detaches wait here for a commit. Any thread may queue, any thread may commit.

    Who queued before a barrier began is covered by it, whoever runs it; who queued meanwhile is
    covered by the next one.

    `barrier` waits, and says how many waits it took. `settle` is told which items are final; it may
    be told twice. `short_waits` is entered around both and the reclaim; what it could not put back
    is `restore`d after it, and by later commits until nothing is left.
    """

    def __init__(
        self,
        *,
        barrier: Callable[[], int],
        short_waits: Callable[[], AbstractContextManager[None]],
        settle: Callable[[Sequence[Any]], None],
        restore: Callable[[], KernelError | None] = lambda: None,
    ) -> None:
        self._barrier = barrier
        self._short_waits = short_waits
        self._settle = settle
        self._restore = restore
        # Reentrant: a signal handler may come between a thread's taking a lock and its next step.
        self._lock = RLock()
        self._turn = RLock()
        self._committing = 0
        self._open: _Batch = _Batch()
        self._debts: dict[int, _Debt] = {}

    def add(self, items: Iterable[Item], top: Callable[[], None]) -> None:
        """Run the top half of `items` and queue them, as one step: no commit can come between."""
        with self._lock:
            start = time.perf_counter()
            top()
            self._open.top_seconds += time.perf_counter() - start
            self._open.items.extend(items)

    @property
    def commits_here(self) -> bool:
        """Whether this thread is inside a commit: a callback of it, or a signal handler."""
        return self._committing == get_ident()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued and nothing was left."""
        return not self._open.items and not self._debts

    def commit(self, on_final: Callable[[], None] | None = None) -> CommitReport:
        """Apply all that is queued: one barrier, then reclaim.

        `on_final` is called in between, when no counter changes any more. With an empty queue
        nothing happens, once the batches that others are committing are done.

        Raises KernelError if the barrier fails: nothing is reclaimed then, and all stays queued.
        Raises SessionError inside another commit of this thread. An error in `on_final`, or one
        that a carrier raised, is raised after the reclaim; what such a carrier had to do is left.
        """
        if self.commits_here:
            raise SessionError("commit inside a commit: wait until it has returned")
        with self._lock:
            batch = self._open
        with self._turn:
            self._committing = get_ident()
            try:
                return self._take_turn(batch, on_final)
            finally:
                self._committing = 0

    def discard(self, carriers: Iterable[tuple[Carrier, Sequence[Item]]]) -> None:
        """Reclaim carriers whose probes never counted, so that no barrier is needed.

        What cannot be removed is left to the commits. Raises what a carrier raised.
        """
        errors: list[BaseException] = []
        with self._turn:
            for carrier, gone in carriers:
                self._debts[id(carrier)] = _Debt(carrier, gone)
            if self._debts:
                with self._short_waits():
                    self._reclaim((), errors)
        if errors:
            raise errors[0]

    def _take_turn(self, batch: _Batch, on_final: Callable[[], None] | None) -> CommitReport:
        while batch.joined is not None:
            batch = batch.joined
        if batch.report is not None:
            # Another thread's barrier covered it.
            if on_final is not None:
                on_final()
            return batch.report
        if self.is_idle:
            return CommitReport(left=tuple(self._left_of_short_waits()))
        began = time.perf_counter()
        errors: list[BaseException] = []
        with self._short_waits():
            with self._lock:
                # Sealed: only who has the turn does this, so `batch` is the open one.
                self._open = _Batch()
            barriers = self._wait(batch)
            final = time.perf_counter()
            if on_final is not None:
                try:
                    on_final()
                except BaseException as error:
                    errors.append(error)
            reclaim_began = time.perf_counter()
            clean, dirty, left = self._reclaim(batch.items, errors)
        left += self._left_of_short_waits()
        batch.report = CommitReport(
            probes=len(batch.items),
            clean=clean,
            dirty=dirty,
            barriers=barriers,
            top_seconds=batch.top_seconds,
            barrier_seconds=final - began,
            reclaim_seconds=time.perf_counter() - reclaim_began,
            left=tuple(left),
        )
        if errors:
            raise errors[0]
        return batch.report

    def _left_of_short_waits(self) -> list[Left]:
        error = self._restore()
        return [Left(str(error), error.errno)] if error else []

    def _wait(self, batch: _Batch) -> int:
        """The barrier, after which the batch is settled; or, failing that, queued again."""
        try:
            barriers = self._barrier() if batch.items else 0
            self._settle(batch.items)
        except BaseException:
            with self._lock:
                batch.joined = self._open
                batch.joined.items[:0] = batch.items
                batch.joined.top_seconds += batch.top_seconds
            raise
        return barriers

    def _reclaim(
        self, items: Sequence[Item], errors: list[BaseException]
    ) -> tuple[int, int, list[Left]]:
        """Give each carrier its own; one that fails keeps its debt and stops no other."""
        # Those of a carrier mostly stand together: there may be 40,000.
        for carrier, gone in groupby(items, lambda item: item.carrier):
            if carrier is not None:
                self._debts.setdefault(id(carrier), _Debt(carrier)).gone.extend(gone)
        clean = dirty = 0
        left: list[Left] = []
        for key, debt in list(self._debts.items()):
            try:
                outcome = debt.carrier.reclaim(debt.gone)
            except BaseException as error:
                errors.append(error)
                left.append(Left(f"{len(debt.gone)} probes: {error!r}", 0))
                continue
            clean += outcome.clean
            dirty += outcome.dirty
            if outcome.left:
                left.extend(outcome.left)
                debt.gone = []
            else:
                del self._debts[key]
        return clean, dirty, left
