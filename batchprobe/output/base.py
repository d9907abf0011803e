# SPDX-License-Identifier: Apache-2.0
"""What a sink is: where the results of a run go. And the summary at its end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from batchprobe.commit.queue import CommitReport
from batchprobe.functions.targets import Reason, Resolution, Skipped
from batchprobe.probe import Event, Probe

__all__ = ["Sink", "Summary", "Values"]

Values = Mapping[Probe, Any]
"""What the action made of each probe's hits."""


class Summary(NamedTuple):
    """One run, from its first line to the removal of its last probe. Times are in seconds."""

    kernel: str = os.uname().release
    arch: str = os.uname().machine
    abi: str = ""
    placement: str = ""
    skipped: Sequence[Skipped] = ()
    omitted: Mapping[Reason, int] = {}
    hits: Mapping[Probe, int] = {}
    """Final hits of every probe that was attached."""
    values: Mapping[Probe, Any] = {}
    """Final values of the action."""
    pending: Sequence[Probe] = ()
    """Probes whose module was not loaded at the attach."""
    missed: int | None = None
    lost: int | None = 0
    attach_seconds: float = 0.0
    commit: CommitReport = CommitReport()
    barrier_note: str = ""


class Sink:
    """Where results go. The base class drops everything.

    A run enters it when the probes count and leaves it when they stop. What `final` and `end` write
    may be raised as OSError: the run reports that after it has removed the probes.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Tracing is over: `final` and `end` follow."""

    def interval(self, seconds: float, total: Values, delta: Values) -> None:
        """The values so far, and what came since the last call; `seconds` after the first hit
        could count.
        """

    def event(self, event: Event) -> None:
        """One hit, of an action that records hits singly."""

    def final(self, values: Values) -> None:
        """The final values. Probes are still being removed."""

    def end(self, summary: Summary) -> None:
        """All is removed."""

    def resolution(self, found: Resolution) -> None:
        """What a list comes to; nothing is attached."""
