# SPDX-License-Identifier: Apache-2.0
"""Session: attach, read, detach, commit, close.

What users call. `attach.attacher` attaches, `live_probes` reads and closes gates, `commit.queue`
waits and reclaims, `cleanup.crash_guard` covers a kill.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

from batchprobe._util.gc_pause import gc_pause
from batchprobe._util.interrupts import deferred_interrupt
from batchprobe.actions import Action, Count
from batchprobe.attach.attacher import Attacher, Progress, parse
from batchprobe.attach.base import Attachment, Placement
from batchprobe.cleanup.crash_guard import CrashGuard
from batchprobe.commit.barrier import Barrier, BarrierMode
from batchprobe.commit.queue import CommitQueue, CommitReport
from batchprobe.commit.reclaim_progress import ReclaimProgress
from batchprobe.errors import AttachCancelledError, SessionError
from batchprobe.filters.base import Filter
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.functions.targets import Reason, Skipped
from batchprobe.live_probes import LiveProbes
from batchprobe.probe import Event, Probe, ProbeState
from batchprobe.sys.process import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from batchprobe.commit.queue import OnFinal, Wait

__all__ = ["Session"]


class Session:
    """Probes on kernel functions, and one commit that removes them.

        with Session() as session:
            probes = session.attach(["vfs_*", "tcp_sendmsg%return"])
            time.sleep(5)
            for probe in probes:
                print(probe.label, probe.count)

    Leaving the block detaches all probes in one commit; so do `close` and the interpreter's exit.
    Any thread may attach, detach and commit. A signal handler may only detach: the other calls wait
    for locks that the interrupted thread may hold. A forked child can do nothing with the session.

    `action` is what happens on a hit (`batchprobe.actions`), `filters` decide which hits count.
    `abi` is "auto", "multi", "event" or "perf"; `placement` "auto", "entry" or "after" (behind the
    entry patch site); `barrier` "auto", "expedited" or "normal". `progress` is called with a stage
    ("resolve", "compile", "attach", "reclaim"), the work done, and all work; `explain` with a
    sentence for each decision, such as why an ABI was passed over.

    Creating a session touches nothing. Raises ValueError for choices that do not fit together.
    """

    def __init__(
        self,
        *,
        action: Action | None = None,
        filters: Sequence[Filter] = (),
        abi: str = "auto",
        placement: str = "auto",
        barrier: str = "auto",
        progress: Progress = lambda _stage, _done, _total: None,
        explain: Callable[[str], None] | None = None,
    ) -> None:
        self.action = Count() if action is None else action
        self._reclaimed = ReclaimProgress(progress)
        self._owner = Owner.this_process()
        mode = BarrierMode(barrier)
        self._guard = CrashGuard(mode, self.close, self._reclaimed)
        self._barrier = Barrier(mode, self._owner, guard=self._guard.arm)
        self._attacher = Attacher(
            action=self.action,
            filters=tuple(filters),
            abi=abi,
            placement=Placement(placement),
            group=self._owner.group,
            guard=self._guard.arm,
            expedited_grace_periods=self._barrier.expedited_grace_periods,
            expedites=lambda: self._barrier.expedites,
            discard=self._discard,
            progress=progress,
            reclaimed=self._reclaimed,
            explain=explain or (lambda _sentence: None),
        )
        self._live = LiveProbes(self._attacher.symbols)
        self._queue = CommitQueue(
            barrier=self._barrier.wait,
            expedited_grace_periods=self._barrier.expedited_grace_periods,
            finalize=self._live.finalize,
            restore=self._barrier.restore,
            remove=self._guard.remove,
        )
        # One attach at a time. Lock order: attach, commit, live probes, queue.
        self._attaching = RLock()
        self._attach_depth = 0

    @property
    def probes(self) -> list[Probe]:
        """The attached and queued probes, in order of attach; a committed one is forgotten here."""
        return list(self._live)

    @property
    def attached(self) -> list[Probe]:
        """The probes that count now."""
        return [probe for probe in self._live if probe.state is ProbeState.ATTACHED]

    @property
    def skipped(self) -> list[Skipped]:
        """Entries that became no probe, each with the reason."""
        return list(self._attacher.skipped)

    @property
    def omitted(self) -> dict[Reason, int]:
        """Functions that a pattern matched but that cannot be probed, counted by reason."""
        return dict(self._attacher.omitted)

    @property
    def distrusted(self) -> dict[tuple[str, str], str]:
        """By ABI and placement: why such probes would count wrongly here. They are not used."""
        return self._attacher.distrusted

    @property
    def barrier_note(self) -> str:
        """Why grace periods are not expedited; empty if they are."""
        return self._barrier.note

    def counts(self) -> dict[Probe, int]:
        """Hits so far of every probe in `probes`. They only grow: print differences."""
        self._require_ours()
        return self._live.hits()

    def snapshot(self) -> dict[Probe, Any]:
        """The action's value so far of every probe in `probes`; with Count the same as `counts`."""
        self._require_ours()
        return self._live.values()

    def events(self) -> Iterator[Event]:
        """Events since the last call, if the action has any. Every event of a detached probe can be
        read here once its commit has returned.
        """
        self._require_ours()
        return self._live.events()

    def missed(self) -> int | None:
        """Hits that ran no program; None if unknown, as of an event before its last commit."""
        self._require_ours()
        return self._live.missed()

    def missed_in(self) -> list[Probe]:
        """Detached probes that missed hits, most of all first; none if only a sum is known."""
        self._require_ours()
        return self._live.missed_in()

    def lost(self) -> int | None:
        """Hits that are counted and not in the action's values; None if that cannot be known."""
        self._require_ours()
        return self._live.lost()

    def attach(
        self,
        entries: Iterable[str | ProbeSpec],
        *,
        program: object = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Probe]:
        """Attach a probe to every function that the entries name; all start to count together.

        Entries are written as in a function list (see `batchprobe.funclist.spec`). An entry that
        cannot be probed is added to `skipped`; the others are attached.

        With `program`, each hit that counts also runs a program of yours: a function of bcc's
        `BPF.load_func(NAME, BPF.KPROBE)`, a descriptor of one (not for links), or a list of these
        with one for each entry. A detached probe runs it no more after its commit.

        Raises SpecError for a malformed entry, TypeError for what is no program, ValueError for
        programs in a session whose action is not Count, NothingAttachedError if no entry became a
        probe, UnsupportedError where this machine or user cannot trace, AttachCancelledError after
        `cancelled()` returned true (nothing stays attached then), SessionError if the session is
        closed, of another process, or in a commit of this thread, OSError without a guardian.
        """
        self._require_usable()
        self._require_open()
        action = None
        if program is None:
            specs = parse(entries)
        else:
            from batchprobe.attach.user_programs import parse_with_programs  # noqa: PLC0415 (rare)

            specs, action = parse_with_programs(entries, program)
        with deferred_interrupt() as interrupt, self._one_attach(), gc_pause():

            def check() -> None:
                if interrupt.pressed or cancelled():
                    raise AttachCancelledError("interrupted while attaching: nothing is attached")
                self._require_open()

            try:
                return self._adopt(*self._attacher.attach(specs, check, action))
            except AttachCancelledError:
                if not interrupt.pressed:
                    raise
        raise AssertionError("unreachable: the interrupt was raised")

    @contextmanager
    def _one_attach(self) -> Iterator[None]:
        with self._attaching:
            self._attach_depth += 1
            try:
                yield
            except BaseException:
                # An attach that is undone raises one error: its own.
                self._reclaimed.forget_error()
                raise
            finally:
                self._attach_depth -= 1
                self._disarm_if_done()

    def _adopt(self, probes: list[Probe], attachments: Sequence[Attachment]) -> list[Probe]:
        """Take over the probes of an attach: arm the guardian, then open the gates."""
        try:
            # The commit will need the guardian and should not wait for its start.
            self._guard.arm()
            self._guard.after_attach()
            # Before the gates open, as it writes to a socket, which users may count.
            self._guard.prepare()
        except BaseException:
            self._discard(attachments)
            raise
        # Before `add`, so that nobody can detach a probe whose gate is about to be opened.
        for attachment in attachments:
            attachment.maps.open_gates(probe.slot for probe in attachment.live)
        if not self._live.add(probes, attachments):
            self._discard(attachments)
            raise SessionError("the session was closed while it attached: nothing is attached")
        return probes

    def _discard(self, attachments: Sequence[Attachment]) -> None:
        """Undo an attach. Commits retry, and report, what cannot be removed now."""
        self._queue.discard((attachment, list(attachment.live)) for attachment in attachments)

    def detach(
        self, probes: Probe | Iterable[Probe], *, commit: bool = False
    ) -> CommitReport | None:
        """Stop counting these probes and queue them for the commit; with `commit`, commit too.

        Without `commit` nothing waits. Raises NotAttachedError, and changes nothing, if one of them
        is not attached by this session.
        """
        if commit:
            self._require_usable()
        self._require_ours()
        gone = [probes] if isinstance(probes, Probe) else list(probes)
        with deferred_interrupt():
            self._queue.add(gone, lambda: self._live.close_gates(gone))
        return self.commit() if commit else None

    def commit(self, on_final: OnFinal = None, *, wait: Wait = True) -> CommitReport:
        """Apply all queued detaches: one barrier, then the reclaim.

        `on_final` is called when the results are final, before kernel objects are reclaimed.
        Detaches that other threads queued before the barrier began are covered by it.
        With `wait=False` the guardian process reclaims, and nothing waits for that. `wait` may also
        be a function: a reclaim that takes long is then waited for while it returns true.
        """
        self._require_usable()
        with deferred_interrupt():
            try:
                self._live.claim_hits()
            finally:
                try:
                    report = self._queue.commit(on_final, wait)
                finally:
                    self._live.forget_empty()
            self._reclaimed.raise_error()
        return report

    def detach_all(self, on_final: OnFinal = None, *, wait: Wait = True) -> CommitReport:
        """Detach every probe and commit, in one batch."""
        self._require_usable()
        gone: list[Probe] = []
        with deferred_interrupt():
            self._queue.add(gone, lambda: gone.extend(self._live.close_all_gates()))
            return self.commit(on_final, wait=wait)

    @contextmanager
    def batch(self) -> Iterator[Self]:
        """Commit the detaches of this block together at its end, however it is left."""
        try:
            yield self
        finally:
            if self._is_ours:
                self.commit()

    def close(self, *, wait: Wait = True) -> CommitReport:
        """Detach all probes, commit, and release everything; the session attaches no more. A second
        call only retries what the first could not remove. A forked child does nothing.
        """
        if not self._is_ours:
            return CommitReport()
        self._require_usable()
        with deferred_interrupt():
            self._live.seal()
            try:
                return self.detach_all(wait=wait)
            finally:
                self._disarm_if_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def _is_ours(self) -> bool:
        return os.getpid() == self._owner.pid

    def _require_ours(self) -> None:
        if not self._is_ours:
            raise SessionError(
                f"the session and its probes belong to process {self._owner.pid}: "
                "a forked child needs a Session of its own"
            )

    def _require_usable(self) -> None:
        self._require_ours()
        if self._queue.commits_here:
            raise SessionError("inside a commit of this thread: wait until it has returned")

    def _require_open(self) -> None:
        if self._live.is_sealed:
            raise SessionError("the session is closed: nothing is attached")

    def _disarm_if_done(self) -> None:
        """Dismiss the guardian once nothing can be left for it to remove."""
        with self._attaching:
            done = self._live.is_sealed and not self._attach_depth
            if done and not len(self._live) and self._queue.is_idle:
                self._attacher.close()
                self._guard.disarm()
