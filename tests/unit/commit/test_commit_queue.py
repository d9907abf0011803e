# SPDX-License-Identifier: Apache-2.0
"""The commit queue, on attachments that are plain Python."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from batchprobe.commit.queue import (
    CommitQueue,
    CommitReport,
    Reclaimed,
    Remains,
    RemovalFailure,
)
from batchprobe.errors import KernelError, SessionError

Wait = bool | Callable[[], bool]
WAIT_SECONDS = 20
STUBBORN = RemovalFailure("a stubborn one", 16)


@dataclass(eq=False)
class Thing:
    """Stands for a probe."""

    attachment: Bundle | None


@dataclass(eq=False)
class Bundle:
    """An attachment: removed with its last live thing, unless it is stubborn."""

    log: list[str]
    live: set[Thing] = field(default_factory=set)
    stubborn: int = 0
    # Raised by the next reclaim, before it does any work.
    error: BaseException | None = None
    is_slow: bool = False

    def add(self, number: int) -> list[Thing]:
        things = [Thing(self) for _ in range(number)]
        self.live.update(things)
        return things

    def takes_long(self, gone: Sequence[Thing]) -> bool:
        return self.is_slow

    def reclaim(self, gone: Sequence[Thing], remains: Remains | None = None) -> Reclaimed:
        self.log.append(f"reclaim {len(gone)}")
        if remains is not None:
            remains.commands.append(f"remove {len(gone)}")
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.live.difference_update(gone)
        failed: tuple[RemovalFailure, ...] = ()
        if self.stubborn:
            self.stubborn -= 1
            failed = (STUBBORN,)
        if self.live:
            return Reclaimed(clean=len(gone), failed=failed)
        return Reclaimed(dirty=len(gone), failed=failed)


class Machine:
    """A queue whose callbacks are logged in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.broken = False
        self.unrestored: KernelError | None = None
        self.refused: list[RemovalFailure] = []
        self.goes_on = False
        self.queue: CommitQueue = CommitQueue(
            barrier=self.barrier,
            expedited_grace_periods=self.expedited_grace_periods,
            finalize=self.finalize,
            restore=lambda: self.unrestored,
            remove=self.remove,
        )

    def barrier(self) -> int:
        self.log.append("barrier")
        if self.broken:
            raise KernelError("barrier", 22)
        return 1

    @contextlib.contextmanager
    def expedited_grace_periods(self) -> Iterator[None]:
        self.log.append("short")
        try:
            yield
        finally:
            self.log.append("long")

    def finalize(self, things: Sequence[Thing]) -> None:
        self.log.append(f"finalize {len(things)}")

    def remove(self, remains: Remains, wait: Wait) -> tuple[list[RemovalFailure], bool]:
        self.log.append(" and ".join(remains.commands))
        assert not self.queue.is_idle
        if not self.refused:
            remains.commands.clear()
        return self.refused, self.goes_on

    def bundle(self) -> Bundle:
        return Bundle(self.log)

    def detach(self, things: Sequence[Thing]) -> None:
        self.queue.add(things, lambda: self.log.append(f"top {len(things)}"))

    def commit(self, wait: Wait = True) -> CommitReport:
        return self.queue.commit(lambda: self.log.append("final"), wait)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_an_empty_queue_does_nothing(machine: Machine) -> None:
    assert machine.commit() == CommitReport()
    assert machine.log == []


def test_the_phases_are_in_order(machine: Machine) -> None:
    machine.detach(machine.bundle().add(3))
    assert machine.log == ["top 3"]
    report = machine.commit()
    assert machine.log == [
        "top 3", "short", "barrier", "finalize 3", "final", "reclaim 3", "long",
    ]  # fmt: skip
    assert (report.probes, report.clean, report.dirty) == (3, 0, 3)
    assert (report.barriers, report.failed) == (1, ())
    assert min(report.top_seconds, report.barrier_seconds, report.reclaim_seconds) > 0
    assert machine.commit() == CommitReport()


def test_one_barrier_and_one_reclaim_per_attachment(machine: Machine) -> None:
    whole, part = machine.bundle(), machine.bundle()
    all_of_it, some = whole.add(2), part.add(5)[:3]
    for thing in (*all_of_it, *some):
        machine.detach([thing])
    report = machine.commit()
    assert machine.log.count("barrier") == 1
    assert [line for line in machine.log if line.startswith("reclaim")] == [
        "reclaim 2",
        "reclaim 3",
    ]
    assert (report.probes, report.clean, report.dirty) == (5, 3, 2)


def test_an_item_without_attachment_is_finalized(machine: Machine) -> None:
    machine.detach([Thing(None)])
    report = machine.commit()
    assert (report.probes, report.clean, report.dirty) == (1, 0, 0)
    assert "finalize 1" in machine.log


def test_a_refused_top_half_queues_nothing(machine: Machine) -> None:
    def refuse() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        machine.queue.add(machine.bundle().add(1), refuse)
    assert machine.commit() == CommitReport()


def test_a_failing_barrier_keeps_everything_queued(machine: Machine) -> None:
    bundle = machine.bundle()
    first, second = bundle.add(2)
    machine.detach([first])
    machine.broken = True
    for _ in range(2):
        with pytest.raises(KernelError):
            machine.commit()
    assert not [line for line in machine.log if line.startswith(("finalize", "reclaim", "final"))]
    assert machine.log[-1] == "long"
    machine.detach([second])
    machine.broken = False
    report = machine.commit()
    assert (report.probes, report.dirty, report.barriers) == (2, 2, 1)
    assert report.top_seconds > 0
    assert bundle.live == set()


def test_an_error_in_on_final_comes_after_the_reclaim(machine: Machine) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    machine.detach(machine.bundle().add(1))
    with pytest.raises(ZeroDivisionError):
        machine.queue.commit(fail)
    assert machine.log[-2:] == ["reclaim 1", "long"]
    assert machine.commit() == CommitReport()


def test_a_failed_removal_is_tried_again_without_a_barrier(machine: Machine) -> None:
    bundle = machine.bundle()
    bundle.stubborn = 2
    machine.detach(bundle.add(1))
    for expected in (1, 0):
        machine.log.clear()
        report = machine.commit()
        assert report.failed == (STUBBORN,)
        assert (report.probes, report.barriers) == (expected, expected)
        assert machine.log.count("barrier") == expected
    assert machine.commit().failed == ()
    machine.log.clear()
    assert machine.commit() == CommitReport()
    assert machine.log == []


def test_an_attachment_that_raises_stops_no_other_and_is_tried_again(machine: Machine) -> None:
    bundles = [machine.bundle() for _ in range(3)]
    bundles[1].error = ZeroDivisionError("in the middle")
    for bundle in bundles:
        machine.detach(bundle.add(2))
    with pytest.raises(ZeroDivisionError):
        machine.commit()
    assert [len(bundle.live) for bundle in bundles] == [0, 2, 0]
    report = machine.commit()
    assert (report.probes, report.barriers, report.dirty, report.failed) == (0, 0, 2, ())
    assert not bundles[1].live
    assert machine.commit() == CommitReport()


def test_the_next_batch_reclaims_what_a_raising_attachment_did_not() -> None:
    machine = Pausing()
    bundle = machine.bundle()
    bundle.error = ZeroDivisionError("in the middle")
    machine.detach(bundle.add(1))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            machine.queue.commit()
        except ZeroDivisionError as error:
            errors.append(error)

    first = in_thread(run)
    assert machine.began.acquire(timeout=WAIT_SECONDS)
    machine.detach(machine.bundle().add(1))
    machine.go_on.release(2)
    first.join(WAIT_SECONDS)
    report = machine.queue.commit()
    assert (len(errors), report.probes, report.dirty, report.failed) == (1, 1, 2, ())


def test_a_failing_restore_is_reported_until_it_succeeds(machine: Machine) -> None:
    machine.unrestored = KernelError("rcu_expedited", 30)
    machine.detach(machine.bundle().add(1))
    for _ in range(2):
        assert [failure.errno for failure in machine.commit().failed] == [30]
    machine.unrestored = None
    assert machine.commit() == CommitReport()


def test_a_commit_inside_a_commit_is_refused(machine: Machine) -> None:
    machine.detach(machine.bundle().add(1))

    def again() -> None:
        machine.queue.commit()

    with pytest.raises(SessionError):
        machine.queue.commit(again)
    assert machine.log[-2:] == ["reclaim 1", "long"]
    # A detach is allowed, and waits for the next commit.
    late = machine.bundle()
    machine.detach(machine.bundle().add(1))
    assert machine.queue.commit(lambda: machine.detach(late.add(1))).probes == 1
    assert late.live
    assert machine.commit().probes == 1


def test_discard_needs_no_barrier(machine: Machine) -> None:
    bundle, stubborn = machine.bundle(), machine.bundle()
    stubborn.stubborn = 1
    machine.queue.discard((b, b.add(2)) for b in (bundle, stubborn))
    assert machine.log == ["short", "reclaim 2", "reclaim 2", "long"]
    report = machine.commit()
    assert (report.probes, report.barriers, report.failed) == (0, 0, ())
    assert machine.commit() == CommitReport()


def test_a_commit_inside_a_discard_is_refused(machine: Machine) -> None:
    class Curious(Bundle):
        def reclaim(self, gone: Sequence[Thing], remains: Remains | None = None) -> Reclaimed:
            with pytest.raises(SessionError):
                machine.commit()
            return super().reclaim(gone, remains)

    bundle = Curious(machine.log)
    machine.queue.discard([(bundle, bundle.add(2))])
    assert machine.log == ["short", "reclaim 2", "long"]
    assert not machine.queue.commits_here
    assert machine.commit() == CommitReport()


@pytest.mark.parametrize("wait", [False, lambda: False])
def test_a_commit_that_does_not_wait_hands_all_over(machine: Machine, wait: Wait) -> None:
    machine.goes_on = True
    for number in (2, 3):
        machine.detach(machine.bundle().add(number))
    report = machine.commit(wait)
    assert machine.log[-4:] == ["reclaim 2", "reclaim 3", "remove 2 and remove 3", "long"]
    assert (report.probes, report.dirty, report.handed_over, report.failed) == (5, 5, 5, ())
    assert machine.queue.is_idle
    assert machine.commit(wait) == CommitReport()


@pytest.mark.parametrize("is_slow", [False, True])
def test_only_a_long_reclaim_is_handed_over_if_it_is_waited_for(
    machine: Machine, is_slow: bool
) -> None:
    bundle = machine.bundle()
    bundle.is_slow = is_slow
    machine.detach(bundle.add(2))
    report = machine.commit(lambda: True)
    assert ("remove 2" in machine.log) is is_slow
    assert (report.dirty, report.handed_over) == (2, 0)


def test_what_was_refused_is_tried_again(machine: Machine) -> None:
    machine.refused = [STUBBORN]
    machine.detach(machine.bundle().add(2))
    assert machine.commit(False).failed == (STUBBORN,)
    assert not machine.queue.is_idle
    assert machine.commit().failed == (STUBBORN,)
    machine.refused = []
    machine.detach(machine.bundle().add(1))
    assert machine.commit().failed == ()
    assert machine.log[-3:] == ["reclaim 1", "remove 2", "long"]
    assert machine.commit() == CommitReport()


class Pausing(Machine):
    """Its barrier waits until `go_on` is released."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def barrier(self) -> int:
        self.began.release()
        assert self.go_on.acquire(timeout=WAIT_SECONDS)
        return super().barrier()


def in_thread(run: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_queued_before_the_barrier_is_covered_by_it_and_later_by_the_next() -> None:
    machine = Pausing()
    reports: dict[str, CommitReport] = {}
    early, late = machine.bundle().add(1), machine.bundle().add(2)
    machine.detach(early)

    def commit(name: str) -> Callable[[], object]:
        def run() -> None:
            reports[name] = machine.queue.commit()

        return run

    first = in_thread(commit("first"))
    assert machine.began.acquire(timeout=WAIT_SECONDS)
    # The first barrier is running: these are too late for it, and share the second one.
    machine.detach(late[:1])
    second = in_thread(commit("second"))
    machine.detach(late[1:])
    third = in_thread(commit("third"))
    machine.go_on.release(2)
    for thread in (first, second, third):
        thread.join(WAIT_SECONDS)
    assert reports["first"].probes == 1
    assert sorted(log for log in machine.log if log == "barrier") == ["barrier"] * 2
    # One of them ran the barrier for both. Their batch is the same even if `second` began before
    # `third` had queued.
    assert reports["second"] is reports["third"]
    assert reports["second"].probes == 2


def test_a_commit_that_waits_while_a_barrier_fails_is_covered_by_the_next() -> None:
    machine = Pausing()
    early, late = machine.bundle().add(1), machine.bundle().add(1)
    machine.detach(early)
    machine.broken = True
    done: list[CommitReport | KernelError] = []

    def run() -> None:
        try:
            done.append(machine.queue.commit())
        except KernelError as error:
            done.append(error)

    first = in_thread(run)
    assert machine.began.acquire(timeout=WAIT_SECONDS)
    # One commit of the failing batch, and one of the batch that it joins.
    threads = [in_thread(run)]
    machine.detach(late)
    threads.append(in_thread(run))
    machine.go_on.release()
    first.join(WAIT_SECONDS)
    machine.broken = False
    machine.go_on.release(4)
    for thread in threads:
        thread.join(WAIT_SECONDS)
    reports = [report for report in done if isinstance(report, CommitReport)]
    assert len(reports) == len(done) - 1 == 2
    both = max(reports, key=lambda report: report.probes)
    assert (both.probes, both.dirty) == (2, 2)
    # A commit that began only after that found nothing to do.
    assert all(report in (CommitReport(), both) for report in reports)
    assert machine.log.count("finalize 2") == 1


def test_on_final_is_called_for_every_commit_that_shares_a_barrier() -> None:
    machine = Pausing()
    machine.detach(machine.bundle().add(1))
    finals: list[int] = []
    first = in_thread(machine.queue.commit)
    assert machine.began.acquire(timeout=WAIT_SECONDS)
    machine.detach(machine.bundle().add(1))
    commits = [lambda n=n: machine.queue.commit(lambda: finals.append(n)) for n in range(4)]
    threads = [in_thread(commit) for commit in commits]
    machine.go_on.release(2)
    for thread in (first, *threads):
        thread.join(WAIT_SECONDS)
    # A commit that began when all was done had nothing to wait for.
    assert 1 <= len(finals) == len(set(finals)) <= 4


def test_a_commit_waits_for_the_commits_of_other_threads() -> None:
    """Even with an empty queue: all that was queued before is gone on return."""
    machine = Pausing()
    bundle = machine.bundle()
    machine.detach(bundle.add(1))
    first = in_thread(machine.queue.commit)
    assert machine.began.acquire(timeout=WAIT_SECONDS)
    done = threading.Event()

    def wait() -> None:
        machine.queue.commit()
        assert bundle.live == set()
        done.set()

    second = in_thread(wait)
    assert not done.wait(0.05)
    machine.go_on.release()
    assert done.wait(WAIT_SECONDS)
    first.join(WAIT_SECONDS)
    second.join(WAIT_SECONDS)


def test_many_threads_lose_nothing() -> None:
    machine = Machine()
    bundles = [machine.bundle() for _ in range(8)]
    own = [bundle.add(25) for bundle in bundles]
    reports: list[CommitReport] = []

    def leave(things: list[Thing]) -> Callable[[], object]:
        def run() -> None:
            for thing in things:
                machine.detach([thing])
                reports.append(machine.queue.commit())
                assert thing not in (thing.attachment.live if thing.attachment else ())

        return run

    threads = [in_thread(leave(things)) for things in own]
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert len(reports) == 200
    distinct = {id(report): report for report in reports}.values()
    assert sum(report.probes for report in distinct) == 200
    assert sum(report.dirty for report in distinct) >= 8
    assert not any(bundle.live for bundle in bundles)
