"""The queue and the commit: take probes out of service at once, wait once, then reclaim.

This is the kernel's unregister_kprobes() for user space: a top half for each probe (its gate
closes, done by `detach`), one barrier for all of them, a bottom half for each kernel object.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from batchprobe.errors import BatchprobeError

__all__ = ["Carrier", "CommitQueue", "CommitReport", "Item", "Left", "Reclaimed"]


@dataclass(frozen=True, slots=True)
class Left:
    """A kernel object that could not be removed; a later commit tries again."""

    what: str
    errno: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What became of the probes of one carrier."""

    # The kernel object still carries live probes.
    clean: int = 0
    # The last live probe of its kernel object went, and the object with it.
    dirty: int = 0
    left: tuple[Left, ...] = ()


class Carrier(Protocol):
    """A kernel object (link, trace event, perf events) that carries probes."""

    def reclaim(self, gone: Sequence[Any]) -> Reclaimed:
        """The bottom half: these probes are quiet; remove what only they needed.

        Called again with no probes after a reclaim that left something. Never raises for a
        refusal of the kernel's: that is `left`.
        """
        ...


class Item(Protocol):
    """What the queue knows of a probe."""

    @property
    def carrier(self) -> Carrier | None:
        """The kernel object that carries it."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


@dataclass(frozen=True, slots=True)
class CommitReport:
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


@dataclass(slots=True)
class _Batch(Generic[ItemT]):
    items: list[ItemT] = field(default_factory=list)
    top_seconds: float = 0.0
    report: CommitReport | None = None


class CommitQueue(Generic[ItemT]):
    """Detaches wait here for a commit. Any thread may queue, any thread may commit.

    Who queued before a barrier began is covered by it, whoever runs it; who queued meanwhile is
    covered by the next one.
    """

    def __init__(
        self,
        *,
        barrier: Callable[[], int],
        short_waits: Callable[[], AbstractContextManager[None]],
        settle: Callable[[Sequence[ItemT]], None],
    ) -> None:
        self._barrier = barrier
        self._short_waits = short_waits
        self._settle = settle
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._open: _Batch[ItemT] = _Batch()
        self._unfinished: list[Carrier] = []

    def add(self, items: Iterable[ItemT], top: Callable[[], None]) -> None:
        """Run the top half of `items` and queue them, as one step: no commit can come between."""
        with self._lock:
            start = time.perf_counter()
            top()
            self._open.top_seconds += time.perf_counter() - start
            self._open.items.extend(items)

    def commit(self, on_final: Callable[[], None] | None = None) -> CommitReport:
        """Apply all that is queued: one barrier, then reclaim.

        `on_final` is called in between, when no counter changes any more. With an empty queue
        nothing happens, once the batches that others are committing are done.

        Raises KernelError if the barrier fails: nothing is reclaimed then, and all stays queued.
        An error in `on_final` is raised after the reclaim.
        """
        with self._lock:
            batch = self._open
        with self._turn:
            if batch.report is None:
                with self._lock:
                    if not batch.items and not self._unfinished:
                        return CommitReport()
                    self._open = _Batch()
                self._run(batch, on_final)
            return batch.report or CommitReport()

    def _run(self, batch: _Batch[ItemT], on_final: Callable[[], None] | None) -> None:
        began = time.perf_counter()
        with self._short_waits():
            try:
                barriers = self._barrier() if batch.items else 0
            except BatchprobeError:
                with self._lock:
                    self._open.items[:0] = batch.items
                    self._open.top_seconds += batch.top_seconds
                raise
            final = time.perf_counter()
            self._settle(batch.items)
            try:
                if on_final is not None:
                    on_final()
            finally:
                reclaim_began = time.perf_counter()
                clean, dirty, left = self._reclaim(batch.items)
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

    def _reclaim(self, items: Sequence[ItemT]) -> tuple[int, int, list[Left]]:
        gone_of: dict[int, tuple[Carrier, list[ItemT]]] = {
            id(carrier): (carrier, []) for carrier in self._unfinished
        }
        for item in items:
            carrier = item.carrier
            if carrier is not None:
                gone_of.setdefault(id(carrier), (carrier, []))[1].append(item)
        self._unfinished = []
        clean = dirty = 0
        left: list[Left] = []
        for carrier, gone in gone_of.values():
            outcome = carrier.reclaim(gone)
            clean += outcome.clean
            dirty += outcome.dirty
            if outcome.left:
                left.extend(outcome.left)
                self._unfinished.append(carrier)
        return clean, dirty, left
