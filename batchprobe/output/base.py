# SPDX-License-Identifier: Apache-2.0
"""What a sink is: where the results of a run go. And the summary at its end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from batchprobe.commit.queue import CommitReport
from batchprobe.functions.targets import Reason, Resolution, Skipped
from batchprobe.output.stderr import say
from batchprobe.probe import Event, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    Values = Mapping[Probe, Any]
    """What the action made of each probe's hits."""

__all__ = ["Sink", "Summary"]


class Summary:
    """One run, from its first line to the removal of its last probe. Times are in seconds.

    `hits` and `values` are the final ones of every probe that was attached, `pending` the probes
    whose module was not loaded then.
    """

    def __init__(
        self,
        *,
        abi: str = "",
        placement: str = "",
        skipped: Sequence[Skipped] = (),
        omitted: Mapping[Reason, int] | None = None,
        hits: Mapping[Probe, int] | None = None,
        values: Values | None = None,
        pending: Sequence[Probe] = (),
        missed: int | None = None,
        missed_in: Sequence[Probe] = (),
        lost: int | None = 0,
        attach_seconds: float = 0.0,
        commit: CommitReport | None = None,
        barrier_note: str = "",
    ) -> None:
        self.kernel = os.uname().release
        self.arch = os.uname().machine
        self.abi = abi
        self.placement = placement
        self.skipped = skipped
        self.omitted = omitted or {}
        self.hits = hits or {}
        self.values = values or {}
        self.pending = pending
        self.missed = missed
        self.missed_in = missed_in
        """The probes that missed hits, most of all first, where the kernel counts by probe."""
        self.lost = lost
        self.attach_seconds = attach_seconds
        self.commit = commit or CommitReport()
        self.barrier_note = barrier_note


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

    def events_over(self) -> None:
        """These were all events so far: what is buffered may be written."""

    def final(self, values: Values) -> None:
        """The final values. Probes are still being removed."""

    def end(self, summary: Summary) -> None:
        """All is removed."""

    def warn(self, line: str) -> None:
        """Something that users should know while the probes count."""
        say(line)

    def resolution(self, found: Resolution) -> None:
        """What a list comes to; nothing is attached."""
