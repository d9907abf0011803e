# SPDX-License-Identifier: Apache-2.0
"""What a batch says of itself, and which kprobes are attached together."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from batchprobe._util.interrupts import deferred_interrupt
from batchprobe.bcc.batch import Batch, Summary, rounds
from batchprobe.bcc.kprobe import Kprobe
from batchprobe.commit.queue import CommitReport
from batchprobe.errors import UnsupportedError
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe
from batchprobe.programs.user_program import UserProgram


def kprobe(address: int, *, is_return: bool = False) -> Kprobe:
    arguments = (7, int(is_return), b"p_function", b"function", 0, 0)
    return Kprobe(UserProgram("program", 7), arguments, address)


def test_a_place_is_taken_once_in_each_round() -> None:
    first, second, third = kprobe(1), kprobe(1), kprobe(1)
    returned, other = kprobe(1, is_return=True), kprobe(2)
    assert list(rounds([first, second, returned, third, other])) == [
        [first, returned, other],
        [second],
        [third],
    ]
    assert list(rounds([])) == []


@pytest.mark.parametrize(
    ("probes", "objects", "reports", "left", "text"),
    [
        (0, 0, (), {}, "nothing to batch"),
        (
            *(2, 1, (CommitReport(barriers=1, barrier_seconds=0.01, reclaim_seconds=0.11),), {}),
            "2 probes, 1 kernel object, 1 barrier, removed in 0.12 s",
        ),
        (
            *(9, 2, (CommitReport(barriers=1), CommitReport(barriers=1, handed_over=9))),
            {"maxactive": 1},
            "9 probes, 2 kernel objects, 2 barriers, removed in 0 s, 9 of them still being removed "
            "in the background; 1 kprobe left to bcc: maxactive",
        ),
        (0, 0, (), {"maxactive": 3}, "nothing to batch; 3 kprobes left to bcc: maxactive"),
    ],
)
def test_the_summary(
    probes: int,
    objects: int,
    reports: tuple[CommitReport, ...],
    left: dict[str, int],
    text: str,
) -> None:
    summary = Summary()
    summary.probes, summary.objects, summary.left_to_bcc = probes, objects, left
    for report in reports:
        summary.add(report)
    assert str(summary) == text


def test_the_summary_names_what_no_filter_sees() -> None:
    summary = Summary()
    assert summary.unfiltered_text() == ""
    for kind in ("tracepoint", "kprobe", "tracepoint"):
        summary.note_unfiltered(kind)
    assert summary.unfiltered_text() == "unfiltered: 2 tracepoints, 1 kprobe"
    assert str(summary) == "nothing to batch; unfiltered: 2 tracepoints, 1 kprobe"


class FakeLibrary:
    """bcc's, which attaches whatever is left to it."""

    def __init__(self) -> None:
        self.attached: list[bytes] = []

    def program(self, fd: int) -> UserProgram:
        return UserProgram("program", fd)

    def attach(self, *arguments: Any) -> int:
        self.attached.append(arguments[3])
        return 5


class FailingSession:
    """One that can do nothing."""

    skipped = ()

    def __init__(self, *, locates: bool = True) -> None:
        self.locates = locates

    def locate(self, kprobe: Kprobe) -> int:
        if not self.locates:
            raise UnsupportedError("no symbols")
        return 1

    def attach(self, *_: object, **__: object) -> NoReturn:
        raise UnsupportedError("no filters here")

    def end_trial(self) -> None:
        pass


def batch_of(
    session: FailingSession | AttachingSession, said: list[str], *, is_filtered: bool = False
) -> Batch:
    library: Any = FakeLibrary()
    make: Any = lambda: session  # noqa: E731
    return Batch(library, make, said.append, is_filtered=is_filtered)


def attached(batch: Batch) -> list[bytes]:
    library: Any = batch._library
    names: list[bytes] = library.attached
    return names


ARGUMENTS = (7, 0, b"p_function", b"function", 0, 0)


def test_what_fails_goes_to_bcc() -> None:
    said: list[str] = []
    batch = batch_of(FailingSession(), said, is_filtered=False)
    batch.attach(*ARGUMENTS)
    batch.settle()
    assert (attached(batch), said) == ([b"function"], [])
    assert batch.summary.left_to_bcc == {"no filters here": 1}
    assert batch.summary.unfiltered == {}
    batch = batch_of(FailingSession(locates=False), said, is_filtered=False)
    assert batch.attach(*ARGUMENTS) == 5


def test_what_fails_with_filters_does_not_go_to_bcc_without_them() -> None:
    said: list[str] = []
    batch = batch_of(FailingSession(), said, is_filtered=True)
    batch.attach(*ARGUMENTS)
    batch.attach(*ARGUMENTS[:3], b"other", 8, 0)
    batch.settle()
    # Two at one place are attached one after the other.
    assert said == ["error: 1 kprobe not attached: no filters here"] * 2
    assert attached(batch) == []
    batch = batch_of(FailingSession(locates=False), said, is_filtered=True)
    with pytest.raises(UnsupportedError, match="no symbols"):
        batch.attach(*ARGUMENTS)
    assert attached(batch) == []


def test_what_only_bcc_can_attach_is_named_as_unfiltered() -> None:
    batch = batch_of(FailingSession(), [], is_filtered=True)
    assert batch.attach(7, 1, b"r_function", b"function", 0, 9) == 5
    assert attached(batch) == [b"function"]
    text = "nothing to batch; 1 kprobe left to bcc: maxactive; unfiltered: 1 kprobe"
    assert str(batch.summary) == text


class AttachingSession:
    """One that attaches, and calls `meanwhile` when all is attached."""

    skipped = ()

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.meanwhile = meanwhile
        self.attached: list[Probe] = []
        self.detached: list[Probe] = []
        self.commits = 0

    def locate(self, _kprobe: Kprobe) -> int:
        return 1

    def attach(self, entries: list[ProbeSpec], **_: object) -> list[Probe]:
        # As Session does.
        with deferred_interrupt():
            found = [Probe(Target(spec.text, spec, None)) for spec in entries]
            self.attached += found
            self.meanwhile()
            return found

    def detach(self, probe: Probe) -> None:
        self.detached.append(probe)

    def commit(self, **_: object) -> CommitReport:
        self.commits += 1
        return CommitReport(barriers=1)

    def end_trial(self) -> None:
        pass


def test_ctrl_c_at_the_end_of_an_attach_forgets_no_probe() -> None:
    session = AttachingSession(lambda: signal.raise_signal(signal.SIGINT))
    batch = batch_of(session, [])
    token = batch.attach(*ARGUMENTS)
    with pytest.raises(KeyboardInterrupt):
        batch.settle()
    assert batch.summary.probes == 1
    batch.close(token)
    assert session.detached == session.attached != []


def test_a_signal_handler_detaches_what_is_being_attached() -> None:
    session = AttachingSession(lambda: batch.close(first))
    batch = batch_of(session, [])
    first = batch.attach(*ARGUMENTS)
    batch.attach(*ARGUMENTS[:3], b"other", 8, 0)
    batch.settle()
    # The second one is at the same place: attached after the first, and not detached.
    assert len(session.attached) == 2
    assert session.detached == session.attached[:1]
    assert session.commits == 1
