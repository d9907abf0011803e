# SPDX-License-Identifier: Apache-2.0
"""What a batch says of itself, and which kprobes are attached together."""

from __future__ import annotations

import pytest

from batchprobe.bcc.batch import Summary, rounds
from batchprobe.bcc.kprobe import Kprobe
from batchprobe.commit.queue import CommitReport
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
