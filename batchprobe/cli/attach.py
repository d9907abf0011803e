# SPDX-License-Identifier: Apache-2.0
"""`batchprobe attach`, from a list to a summary: attach, count, stop, commit, print."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property

from batchprobe._util.counted import counted
from batchprobe.actions import Action, Count
from batchprobe.cli.args import AttachOptions
from batchprobe.cli.results_file import results_file
from batchprobe.cli.signals import Stop
from batchprobe.commit.queue import CommitReport, RemovalFailure
from batchprobe.errors import (
    AttachCancelledError,
    ExitStatus,
    NothingAttachedError,
    UsageError,
)
from batchprobe.funclist.read import read_arguments
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.kernel.host import require_descriptors
from batchprobe.output.progress import ProgressBar
from batchprobe.output.stderr import drop_unwritten, say, say_not_removed, say_pending, say_skipped
from batchprobe.probe import Probe, values_of
from batchprobe.session import Session
from batchprobe.sys.libc import share_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any, TextIO

    from batchprobe.cli.claims import ClaimTimes
    from batchprobe.cli.event_flow import EventFlow
    from batchprobe.cli.scope import Scope
    from batchprobe.kernel.switches import Switches
    from batchprobe.output.base import Sink, Values

__all__ = ["attach_lists"]

_COMMAND_POLL_SECONDS = 0.02
_LIVE_SECONDS = 1.0
# Looking at the switches causes hits: not at every interval.
_SWITCHES_SECONDS = 1.0
# Time to end in; the memory goes after it.
_MEMORY_SECONDS = 0.3


def attach_lists(
    lists: Sequence[str],
    options: AttachOptions,
    stop: Stop,
    action: Action | None = None,
    make_sink: Callable[[TextIO], Sink] | None = None,
) -> int:
    """Attach the functions of these lists, and run the action, or count, until the duration is
    over, the command ends or a signal comes; returns the exit status.

    However it ends, the probes are detached and the summary is printed. `make_sink` makes what
    people read instead of a table.
    """

    def check() -> None:
        if stop.is_set():
            raise AttachCancelledError("interrupted while reading lists")

    try:
        specs = read_arguments(lists, check)
    except AttachCancelledError:
        # The attach sees the signal too, and the run ends as always.
        specs = []
    require_descriptors()
    command = None
    if options.command is not None:
        from batchprobe.cli.child import parse_command  # noqa: PLC0415  (most runs have none)

        command = parse_command(options.command)
    with ExitStack() as stack:
        scope = None
        if options.narrows:
            from batchprobe.cli.scope import Scope  # noqa: PLC0415  (most runs count everything)

            scope = stack.enter_context(Scope(options))
        run = _Run(options, stop, command, scope, action, make_sink)
        run.out = stack.enter_context(results_file(options.output))
        return run.run(specs)


class _Run:
    """One run: its session, its sink, and its first error. `out` is set before it begins."""

    out: TextIO

    def __init__(
        self,
        options: AttachOptions,
        stop: Stop,
        command: Sequence[str] | None,
        scope: Scope | None,
        action: Action | None,
        make_sink: Callable[[TextIO], Sink] | None,
    ) -> None:
        self._options = options
        self._make_sink = make_sink
        self._stop = stop
        self._command = command
        self._scope = scope
        self._attach_seconds = 0.0
        self._probes: Sequence[Probe] = ()
        self._look_at_probes()
        self._not_removed: Sequence[RemovalFailure] = ()
        self._progress = ProgressBar(stop.answer_pending)
        try:
            self._session = Session(
                action=action,
                filters=scope.filters if scope is not None else (),
                abi=options.abi,
                placement=options.placement,
                barrier=options.barrier,
                progress=self._progress,
                explain=say if options.verbose else None,
            )
        except ValueError as error:
            raise UsageError(
                f"--abi {options.abi} --placement {options.placement}: {error}"
            ) from error
        self._period = options.interval
        # Why the output or the command failed: reported when the probes are removed.
        self._broken = ""

    @cached_property
    def _sink(self) -> Sink:
        """Where the results go. First asked for when the probes are armed, so no start waits for
        the imports.
        """
        options, action = self._options, self._session.action
        if options.as_json:
            from batchprobe.output.json_lines import JsonSink  # noqa: PLC0415

            return JsonSink(self.out, action)
        if self._make_sink is not None:
            return self._make_sink(self.out)
        if options.interval is None and self.out.isatty():
            from batchprobe.output.live import LiveSink  # noqa: PLC0415

            self._period = _LIVE_SECONDS
            return LiveSink(action, top=options.top)
        from batchprobe.output.text import TextSink  # noqa: PLC0415

        return TextSink(self.out, action, top=options.top)

    @cached_property
    def _flow(self) -> EventFlow | None:
        if not self._session.action.has_events:
            return None
        from batchprobe.cli.event_flow import EventFlow  # noqa: PLC0415  (as the sink)

        return EventFlow(self._session)

    @cached_property
    def _switches(self) -> Switches:
        from batchprobe.kernel.switches import Switches  # noqa: PLC0415  (as the sink)

        return Switches(
            kprobes=self._abis != {"multi"},
            ftrace="entry" in self._placements,
        )

    def run(self, specs: Sequence[ProbeSpec]) -> int:
        """Run to completion; returns the exit status."""
        try:
            probes = self._probes = self._attach(specs)
        except AttachCancelledError as error:
            say(str(error))
            return self._removal_status() or ExitStatus.SIGNALLED + self._stop.number
        except NothingAttachedError as error:
            if status := self._removal_status():
                say(f"error: {error}")
                return status
            raise
        self._look_at_probes()
        if self._pending:
            say_pending(self._pending)
        if address := os.environ.get("NOTIFY_SOCKET"):
            from batchprobe.cli.notify import notify_ready  # noqa: PLC0415  (only in a service)

            notify_ready(address, f"probes that count: {len(probes)}")
        child = self._trace()
        self._stop.busy = lambda: f"still removing {counted(len(probes), 'probe')}: a moment"
        # The command may take its time to end; the probes do not wait for it.
        self._commit(probes)
        status = 0
        if child is not None:
            from batchprobe.cli.child import end_of  # noqa: PLC0415

            status = end_of(child, self._why_over)
        if self._broken:
            if self.out is sys.stdout:
                drop_unwritten(sys.stdout)
            say(f"error: {self._broken}")
            status = status or ExitStatus.ERROR
        if not_removed := self._removal_status():
            return not_removed
        if not status and self._options.strict and (self._session.skipped or self._pending):
            return ExitStatus.SKIPPED
        return status

    def _look_at_probes(self) -> None:
        """Note what the summary says of them: now nobody waits for it."""
        self._pending = [probe for probe in self._probes if probe.address is None]
        self._abis = {probe.abi for probe in self._probes}
        self._placements = {probe.placement for probe in self._probes}

    def _why_over(self) -> str:
        """Why the run ended before its command."""
        if self._broken:
            return "the results cannot be written"
        if self._stop.is_set():
            return f"{signal.Signals(self._stop.number).name} came"
        return f"the {self._options.duration:g} s of -d are over"

    def _removal_status(self) -> int:
        say_not_removed(self._not_removed)
        return ExitStatus.NOT_REMOVED if self._not_removed else ExitStatus.OK

    def _attach(self, specs: Sequence[ProbeSpec]) -> list[Probe]:
        began = time.perf_counter()
        # One call into the kernel may attach 40,000 functions, and no signal interrupts it.
        self._stop.busy = lambda: "stopping, when the kernel is done with what it is attaching"
        try:
            with self._progress:
                return self._session.attach(specs, cancelled=self._stop.is_set)
        except (NothingAttachedError, AttachCancelledError):
            with self._progress:
                commit = self._session.close()
            self._end(commit, {})
            raise
        finally:
            self._stop.busy = str
            self._attach_seconds = time.perf_counter() - began
            for (abi, placement), wrong in self._session.distrusted.items():
                say(f"the ABI {abi} is not used for probes of kind {placement!r}: {wrong}")
            say_skipped(self._session.skipped)

    def _trace(self) -> subprocess.Popen[bytes] | None:
        """Count until it is time to stop; returns the command, if there is one."""
        child: subprocess.Popen[bytes] | None = None
        with self._outliving_output():
            if self._scope is not None:
                self._scope.watch()
            if self._command is not None:
                import subprocess  # noqa: PLC0415  (most runs have no command)

                try:
                    with self._scope.spawning() if self._scope else nullcontext():
                        child = subprocess.Popen(self._command)
                    if self._scope is not None:
                        self._scope.started(child.pid)
                except OSError as error:
                    self._broken = f"cannot run {self._command[0]}: {error.strerror}"
                    return None
            from batchprobe.cli.claims import ClaimTimes  # noqa: PLC0415  (as the sink)

            explain = say if self._options.verbose else None
            with self._sink, ClaimTimes(self._session.probes, explain) as claims:
                self._count(child, claims)
        return child

    def _count(self, child: subprocess.Popen[bytes] | None, claims: ClaimTimes) -> None:
        """Feed the sink until it is time to stop."""
        scope = self._scope
        began = time.monotonic()
        end = None if self._options.duration is None else began + self._options.duration
        due = began + self._period if self._period else None
        look = began + _SWITCHES_SECONDS
        if due is not None:
            # Made before the first interval, because its import causes hits.
            self._switches  # noqa: B018
        before: Values = {}
        while not self._stop.is_set() and (child is None or child.poll() is None):
            if scope is not None and scope.is_over():
                break
            now = time.monotonic()
            if end is not None and now >= end:
                break
            if self._flow is not None:
                self._flow.pass_some(self._sink)
                if self._flow.is_over:
                    break
            must_claim = claims.is_due(now)
            if due is not None and self._period is not None and now >= due:
                total = self._session.snapshot()
                self._sink.interval(now - began, total, _since(before, total))
                before = total
                if now >= look:
                    self._warn_of_switches()
                    look = now + _SWITCHES_SECONDS
                due += self._period * max(1, (now - due) // self._period + 1)
            elif must_claim:
                self._session.counts()
            if must_claim:
                # The snapshot of an interval claims, too.
                claims.claimed(now)
            times = [t - now for t in (end, due, claims.due) if t is not None]
            if self._flow is not None:
                times.append(self._flow.wait)
            if child is not None:
                times.append(_COMMAND_POLL_SECONDS)
            also = [*claims.descriptors, *(scope.ends if scope is not None else ())]
            self._stop.wait(max(min(times), 0.0) if times else None, also)

    def _warn_of_switches(self) -> None:
        """Report a switch that stops the probes; only at intervals and at the end, because reading
        it causes hits.
        """
        for sentence in self._switches.turned_off():
            self._sink.warn(f"warning: {sentence}")

    def _commit(self, probes: Sequence[Probe]) -> None:
        values: dict[Probe, Any] = {}

        def final() -> None:
            nonlocal values
            values = values_of(probes)
            with self._outliving_output():
                if self._flow is not None:
                    self._flow.pass_all(self._sink)
                self._sink.final(values)
                # Before the reclaim: while the kernel removes a link, reading a switch waits.
                self._warn_of_switches()

        with self._progress:
            commit = self._session.detach_all(final, wait=self._waits)
            # Closing retries what could not be removed.
            commit.failed = self._session.close(wait=self._waits).failed
        self._end(commit, values)
        if self._scope is not None:
            if lost := self._scope.lost:
                say(f"{counted(lost, 'thread')} could not be followed: their hits are missing")
            for sentence in self._scope.report():
                say(sentence)
        if commit.handed_over:
            say(
                f"{commit.handed_over} probes count nothing any more; a background process removes "
                "them, and `batchprobe cleanup --wait` waits for that"
            )
            # While they are there, freeing thousands of pages takes several times as long.
            share_memory(_MEMORY_SECONDS)

    def _waits(self) -> bool:
        """Whether to wait for the reclaim."""
        return not (self._options.no_wait or self._stop.is_urgent)

    def _end(self, commit: CommitReport, values: Values) -> None:
        from batchprobe.output.base import Summary  # noqa: PLC0415  (as the sink)

        session, probes = self._session, values.keys()
        self._not_removed = commit.failed
        counts = isinstance(session.action, Count)
        summary = Summary(
            abi="+".join(sorted(self._abis)),
            placement="+".join(sorted(self._placements)),
            skipped=session.skipped,
            omitted=session.omitted,
            hits=values if counts else {probe: probe.count for probe in probes},
            values=values,
            pending=self._pending,
            missed=session.missed() if probes else None,
            missed_in=session.missed_in(),
            lost=session.lost(),
            attach_seconds=self._attach_seconds,
            commit=commit,
            barrier_note=session.barrier_note,
        )
        with self._outliving_output():
            self._sink.end(summary)

    @contextmanager
    def _outliving_output(self) -> Iterator[None]:
        """Go on after a closed pipe or a full disk: the probes have to come off."""
        try:
            yield
        except OSError as error:
            self._broken = self._broken or f"{error.strerror}: part of the results is lost"


def _since(before: Values, total: Values) -> Values:
    return {
        probe: value - before[probe] if probe in before else value for probe, value in total.items()
    }
