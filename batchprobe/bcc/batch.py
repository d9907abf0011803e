# SPDX-License-Identifier: Apache-2.0
"""The kprobes of bcc in this process: those that wait, and those that a session carries.

Arming one by one is slow, on a trace event more than ten times slower than together. So a kprobe
is checked when bcc attaches it, and `settle` arms all that wait and commits all detaches.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock, get_ident

from batchprobe._util.counted import counted
from batchprobe._util.interrupts import Interrupt, deferred_interrupt
from batchprobe.bcc.kprobe import Kprobe
from batchprobe.bcc.library import Library
from batchprobe.bcc.session import ToolSession
from batchprobe.commit.queue import CommitReport
from batchprobe.errors import AttachCancelledError, BatchprobeError, SessionError
from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.probe import Probe, ProbeState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Batch", "Summary", "rounds"]

# No descriptor is as large: the kernel caps fs.nr_open below it (sysctl_nr_open_max, fs/file.c).
_FIRST_TOKEN = 1 << 30
# Of the process and not of a batch: bcc may still hold those of an earlier one, or of the parent.
_tokens = itertools.count(_FIRST_TOKEN)
# A reclaim that takes longer is left to the guardian.
_WAIT_SECONDS = 1.0


class Summary:
    """What became of the kprobes of a process."""

    def __init__(self) -> None:
        self.probes = 0
        self.objects = 0
        """Kernel objects that carried them."""
        self.barriers = 0
        self.seconds = 0.0
        """Of all commits."""
        self.left_to_bcc: dict[str, int] = {}
        """Kprobes that bcc attached itself, by the reason."""
        self.handed_over = 0
        """Probes whose kernel objects the guardian goes on to remove."""
        self.unfiltered: dict[str, int] = {}
        """What the filters know nothing of, because bcc attached it itself, by kind."""

    def note_unfiltered(self, kind: str) -> None:
        """Count one more of what bcc attached."""
        self.unfiltered[kind] = self.unfiltered.get(kind, 0) + 1

    def add(self, report: CommitReport) -> None:
        """Add a commit."""
        self.barriers += report.barriers
        self.seconds += report.top_seconds + report.barrier_seconds + report.reclaim_seconds
        self.handed_over += report.handed_over

    def __str__(self) -> str:
        parts = []
        if self.probes:
            parts = [
                counted(self.probes, "probe"),
                counted(self.objects, "kernel object"),
                counted(self.barriers, "barrier"),
                f"removed in {self.seconds:.3g} s",
            ]
        if self.handed_over:
            parts.append(f"{self.handed_over} of them still being removed in the background")
        text = ", ".join(parts) or "nothing to batch"
        for reason, count in self.left_to_bcc.items():
            text += f"; {counted(count, 'kprobe')} left to bcc: {reason}"
        if self.unfiltered:
            text += f"; {self.unfiltered_text()}"
        return text

    def unfiltered_text(self) -> str:
        """What saw the hits of everybody; empty if that is nothing."""
        kinds = ", ".join(counted(count, kind) for kind, count in self.unfiltered.items())
        return f"unfiltered: {kinds}" if kinds else ""


class Batch:
    """bcc's kprobes. Any thread may call any method; in a forked child none does anything."""

    def __init__(
        self,
        library: Library,
        make_session: Callable[[], ToolSession],
        say: Callable[[str], None],
        *,
        is_filtered: bool = False,
    ) -> None:
        """`say` reports to the user what bcc would swallow. `is_filtered` says that the sessions
        count the hits of some only, which bcc's own kprobes do not.
        """
        self._library = library
        self._make_session = make_session
        self._say = say
        self._is_filtered = is_filtered
        self._session: ToolSession | None = None
        self._kprobes: dict[int, Kprobe] = {}
        self._waiting: dict[int, Kprobe] = {}
        self._native_events: set[bytes] = set()
        self.has_detached = False
        """Whether something is detached that no commit has removed."""
        self._ends = False
        self.summary = Summary()
        self.pid = os.getpid()
        self.changed_at = 0.0
        """When bcc last attached or detached something (CLOCK_MONOTONIC, seconds)."""
        # Reentrant because a signal handler may print while its thread arms.
        self._lock = RLock()
        self._busy = 0

    @property
    def is_settled(self) -> bool:
        """Whether `settle` has nothing to do, not even to wait for another thread that arms."""
        return not (self._waiting or self.has_detached or self._busy)

    # -- what bcc calls ------------------------------------------------------------------------

    def attach(self, *arguments: Any) -> int:
        """Instead of bpf_attach_kprobe(): returns a token, or what that returns."""
        kprobe = Kprobe(self._library.program(arguments[0]), arguments)
        if kprobe.max_active > 0:
            return self._leave_to_bcc(kprobe, "maxactive")
        if kprobe.program.overrides_return:
            return self._leave_to_bcc(kprobe, "bpf_override_return() cannot be called by a program")
        try:
            with self._alone():
                if self._session is None:
                    self._session = self._make_session()
                kprobe.address = self._session.locate(kprobe)
        except (BatchprobeError, OSError) as error:
            if self._is_filtered:
                raise
            return self._leave_to_bcc(kprobe, str(error))
        if not kprobe.address:
            # Refused, mostly: bcc's own call fails in its own words.
            return self._leave_to_bcc(kprobe, "not a function that batchprobe knows")
        with self._lock:
            token = next(_tokens)
            self._kprobes[token] = self._waiting[token] = kprobe
            self.changed_at = time.monotonic()
        return token

    def close(self, token: int) -> int:
        """Instead of bpf_close_perf_event_fd(), of a token: its program runs no more."""
        if os.getpid() != self.pid:
            return 0
        with self._lock:
            kprobe = self._kprobes.pop(token, None)
            self._waiting.pop(token, None)
            if kprobe is None:
                return 0
            kprobe.is_closed = True
            if kprobe.native_fd >= 0:
                status: int = self._library.close(kprobe.native_fd)
                return status or self._library.detach(kprobe.arguments[2])
            self._detach(kprobe)
        return 0

    def close_native(self) -> None:
        """Close the kprobes that `attach` returned a token for and bcc attached after all."""
        with self._lock:
            for token, kprobe in list(self._kprobes.items()):
                if kprobe.native_fd >= 0:
                    self.close(token)

    def _detach(self, kprobe: Kprobe) -> None:
        probe, session = kprobe.probe, self._session
        if session is not None and probe is not None and probe.state is ProbeState.ATTACHED:
            # Before, because Ctrl-C is raised by the detach when it is done.
            self.has_detached = True
            self.changed_at = time.monotonic()
            session.detach(probe)

    @staticmethod
    def owns(token: int) -> bool:
        """Whether `attach` returned it, and not the kernel."""
        return token >= _FIRST_TOKEN

    def is_native(self, event: bytes) -> bool:
        """Whether bcc attached a kprobe of this event itself."""
        return event in self._native_events

    def _leave_to_bcc(self, kprobe: Kprobe, reason: str) -> int:
        fd: int = self._library.attach(*kprobe.arguments)
        if fd >= 0:
            self._native_events.add(kprobe.arguments[2])
            self.summary.left_to_bcc[reason] = self.summary.left_to_bcc.get(reason, 0) + 1
            if self._is_filtered:
                self.summary.note_unfiltered("kprobe")
        return fd

    # -- arming and committing -------------------------------------------------------------------

    def settle(self) -> None:
        """Arm what waits, and commit what was detached."""
        if self.is_settled or self._busy == get_ident() or os.getpid() != self.pid:
            return
        # Ctrl-C cancels the attach. It is raised here, when it is known what is attached.
        with self._alone(), deferred_interrupt() as interrupt:
            # Another thread may have done it meanwhile.
            self._arm(interrupt)
            self._commit()

    def finish(self) -> None:
        """Detach everything and commit: the process ends, or does not batch any more."""
        if os.getpid() != self.pid:
            return
        # A thread that is arming stops.
        self._ends = True
        with self._alone(), deferred_interrupt():
            self._ends = False
            self._waiting.clear()
            session, self._session = self._session, None
            if session is not None:
                self._end_trial(session)
                self._note(session.close(wait=_patience()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread arms meanwhile, and this one does not begin to: the start of the guardian
        is a moment to arm, too.
        """
        with self._lock:
            before, self._busy = self._busy, get_ident()
            try:
                yield
            finally:
                self._busy = before

    def _arm(self, interrupt: Interrupt) -> None:
        waiting, self._waiting = list(self._waiting.values()), {}
        session = self._session
        if not waiting or session is None:
            return
        for kprobes in rounds(waiting):
            self._arm_round(session, kprobes, interrupt)
        self._end_trial(session)

    def _arm_round(
        self, session: ToolSession, kprobes: Sequence[Kprobe], interrupt: Interrupt
    ) -> None:
        reasons = len(session.skipped)
        try:
            probes = session.attach(
                [_spec(kprobe, at) for at, kprobe in enumerate(kprobes, 1)],
                program=[kprobe.program for kprobe in kprobes],
                cancelled=lambda: self._ends or interrupt.pressed,
            )
        except (AttachCancelledError, SessionError):
            # The process ends, or soon will. Attached by bcc one by one, they would only hold that
            # up.
            return
        except (BatchprobeError, OSError) as error:
            if self._is_filtered:
                # It may be the filters that failed. Attached by bcc, all would see everybody's
                # hits, and nothing of the tool's output would show that.
                self._say(f"error: {counted(len(kprobes), 'kprobe')} not attached: {error}")
                return
            probes, why = [], str(error)
        else:
            why = ""
        for probe in probes:
            kprobes[probe.target.spec.source.line - 1].probe = probe
        self._count(probes)
        skipped = {one.source.line: one.message for one in session.skipped[reasons:]}
        for at, kprobe in enumerate(kprobes, 1):
            if kprobe.is_closed:
                # Meanwhile, by a signal handler: other threads wait for us.
                self._detach(kprobe)
            elif kprobe.probe is None:
                self._attach_natively(kprobe, skipped.get(at) or why)

    def _attach_natively(self, kprobe: Kprobe, reason: str) -> None:
        kprobe.native_fd = self._leave_to_bcc(kprobe, reason)
        if kprobe.native_fd < 0:
            self._say(f"{kprobe.function} was accepted and cannot be probed: {reason}")

    def _count(self, probes: Sequence[Probe]) -> None:
        self.summary.probes += len(probes)
        # A perf kprobe is an object of its own.
        self.summary.objects += len(
            {probe if probe.abi == "perf" else probe.attachment for probe in probes}
        )

    def _commit(self) -> None:
        if self.has_detached and self._session is not None:
            self.has_detached = False
            self._note(self._session.commit(wait=_patience()))

    def _note(self, report: CommitReport) -> None:
        self.summary.add(report)
        for failure in report.failed:
            self._say_not_removed(failure.what)

    def _end_trial(self, session: ToolSession) -> None:
        error = session.end_trial()
        if error is not None:
            self._say_not_removed(str(error))

    def _say_not_removed(self, what: str) -> None:
        self._say(f"not removed: {what}; `batchprobe cleanup` removes it")


def _patience() -> Callable[[], bool]:
    end = time.monotonic() + _WAIT_SECONDS
    return lambda: time.monotonic() < end


def rounds(kprobes: Sequence[Kprobe]) -> list[list[Kprobe]]:
    """Kprobes that one attach takes: a kernel object has one probe at a place."""
    found: list[list[Kprobe]] = []
    taken: Counter[tuple[int, bool]] = Counter()
    for kprobe in kprobes:
        place = kprobe.address, kprobe.is_return
        if taken[place] == len(found):
            found.append([])
        found[taken[place]].append(kprobe)
        taken[place] += 1
    return found


def _spec(kprobe: Kprobe, number: int) -> ProbeSpec:
    return ProbeSpec(
        kprobe.function,
        Source("bcc", number),
        Kind.ADDRESS,
        address=kprobe.address,
        is_return=kprobe.is_return,
    )
