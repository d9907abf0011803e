"""The main job, from a list to a summary: attach, count, stop, commit, show."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from batchprobe.errors import AttachCancelledError, BatchprobeError, NothingAttachedError
from batchprobe.funclist.read import read_lists
from batchprobe.output.progress import Stages
from batchprobe.output.text import (
    Summary,
    TextReport,
    forget_unwritten,
    tell,
    tell_left,
    tell_skips,
)
from batchprobe.session import Session

if TYPE_CHECKING:
    import subprocess

    from batchprobe.cli.args import AttachOptions
    from batchprobe.cli.signals import Stop
    from batchprobe.commit.queue import CommitReport, Left
    from batchprobe.funclist.spec import ProbeSpec
    from batchprobe.output.text import Report
    from batchprobe.probe import Probe

__all__ = ["attach_lists"]

_COMMAND_POLL_SECONDS = 0.02
_LIVE_SECONDS = 1.0
# While a module is there, its hits can be given to its probes.
_LOOK_SECONDS = 1.0
_SKIPPED_STATUS = 4
_LEFT_STATUS = 5


class UsageError(BatchprobeError):
    """An option that cannot be followed."""

    exit_status = 2


def attach_lists(lists: Sequence[str], options: AttachOptions, stop: Stop) -> int:
    """Attach what these files say, and count until the duration is over, the command ends or a
    signal comes; the exit status.

    Whatever happens meanwhile, the probes are detached and the summary is written.
    """
    specs = read_lists(lists)
    command = _command(options.command)
    with _output(options.output) as out:
        return _Run(options, stop, out, command).status(specs)


class _Run:
    """One run: its session, its report, and what went wrong so far."""

    def __init__(
        self, options: AttachOptions, stop: Stop, out: TextIO, command: Sequence[str] | None
    ) -> None:
        self._options = options
        self._stop = stop
        self._out = out
        self._command = command
        self._report = _report(options, out)
        self._attach_seconds = 0.0
        self._left: Sequence[Left] = ()
        self._stages = Stages()
        self._session = Session(
            abi=options.abi,
            placement=options.placement,
            barrier=options.barrier,
            progress=self._stages,
        )
        # What could not be written or started: told when the probes are off.
        self._broken: OSError | None = None

    def status(self, specs: Sequence[ProbeSpec]) -> int:
        """Do it all."""
        try:
            probes = self._attach(specs)
        except AttachCancelledError as error:
            tell(str(error))
            return self._left_status() or 128 + self._stop.number
        except NothingAttachedError as error:
            if status := self._left_status():
                tell(f"error: {error}")
                return status
            raise
        self._stop.busy = lambda: f"still removing {len(probes)} probes: a moment"
        child = self._trace()
        # The command may take its time to end: the probes do not wait for it.
        self._commit(probes)
        status = _end_of(child)
        if self._broken is not None:
            if self._out is sys.stdout:
                forget_unwritten(sys.stdout)
            tell(f"error: {self._broken.strerror}: part of the results is lost")
            status = status or 1
        if left_status := self._left_status():
            return left_status
        if status:
            return status
        return _SKIPPED_STATUS if self._options.strict and self._session.skipped else 0

    def _left_status(self) -> int:
        tell_left(self._left)
        return _LEFT_STATUS if self._left else 0

    def _attach(self, specs: Sequence[ProbeSpec]) -> list[Probe]:
        began = time.perf_counter()
        try:
            with self._stages:
                return self._session.attach(specs, cancelled=self._stop.is_set)
        except (NothingAttachedError, AttachCancelledError):
            self._end(self._session.close(), [], {})
            raise
        finally:
            self._attach_seconds = time.perf_counter() - began
            for (abi, place), wrong in self._session.distrusted.items():
                tell(f"the ABI {abi} is not used for probes of kind {place!r}: {wrong}")
            tell_skips(self._session.skipped)

    def _trace(self) -> subprocess.Popen[bytes] | None:
        """Count until it is time to stop; the command, if there is one."""
        child: subprocess.Popen[bytes] | None = None
        live = not self._options.as_json and self._options.interval is None and self._out.isatty()
        with self._outliving_output():
            if self._command is not None:
                import subprocess  # noqa: PLC0415  (most runs have no command)

                child = subprocess.Popen(self._command)
            if live:
                from batchprobe.output.live import LiveTable  # noqa: PLC0415 (rich takes long)

                with LiveTable(top=self._options.top) as table:
                    self._count(child, _LIVE_SECONDS, table.update)
            else:
                self._count(child, self._options.interval, self._tell_counts)
        return child

    def _tell_counts(
        self, seconds: float, _total: Mapping[str, int], delta: Mapping[str, int]
    ) -> None:
        self._report.counts(seconds, delta)

    def _count(
        self,
        child: subprocess.Popen[bytes] | None,
        step: float | None,
        show: Callable[[float, Mapping[str, int], Mapping[str, int]], None],
    ) -> None:
        """Until it is time to stop, `show` all hits and the new ones, every `step` seconds."""
        began = time.monotonic()
        end = None if self._options.duration is None else began + self._options.duration
        due = began + step if step else None
        pending = any(probe.address is None for probe in self._session.probes)
        look = began + _LOOK_SECONDS if pending else None
        before: dict[str, int] = {}
        while not self._stop.is_set() and (child is None or child.poll() is None):
            now = time.monotonic()
            if end is not None and now >= end:
                break
            if due is not None and step is not None and now >= due:
                counts = self._session.counts()
                total = {probe.label: count for probe, count in counts.items()}
                delta = {label: count - before.get(label, 0) for label, count in total.items()}
                show(now - began, total, delta)
                before = total
                due += step * max(1, (now - due) // step + 1)
            elif look is not None and now >= look:
                self._session.counts()
                look = now + _LOOK_SECONDS
            waits = [t - now for t in (end, due, look) if t is not None]
            if child is not None:
                waits.append(_COMMAND_POLL_SECONDS)
            self._stop.wait(max(min(waits), 0.0) if waits else None)

    def _commit(self, probes: Sequence[Probe]) -> None:
        hits: dict[str, int] = {}

        def final() -> None:
            hits.update((probe.label, probe.count) for probe in probes)
            with self._outliving_output():
                self._report.final(hits)

        with self._stages:
            commit = self._session.detach_all(final)
            # What was left is tried once more.
            commit = commit._replace(left=self._session.close().left)
        self._end(commit, probes, hits)

    def _end(self, commit: CommitReport, probes: Sequence[Probe], hits: Mapping[str, int]) -> None:
        session = self._session
        self._left = commit.left
        summary = Summary(
            abi="+".join(sorted({probe.abi for probe in probes})),
            placement="+".join(sorted({probe.placement for probe in probes})),
            skipped=session.skipped,
            left_out=session.left_out,
            hits=hits,
            pending=[probe.label for probe in probes if probe.address is None],
            missed=session.missed() if probes else None,
            attach_seconds=self._attach_seconds,
            commit=commit,
            barrier_note=session.barrier_note,
        )
        with self._outliving_output():
            self._report.end(summary)

    @contextmanager
    def _outliving_output(self) -> Iterator[None]:
        """A closed pipe or a full disk must not keep the probes on."""
        try:
            yield
        except OSError as error:
            self._broken = self._broken or error


def _report(options: AttachOptions, out: TextIO) -> Report:
    if not options.as_json:
        return TextReport(out, top=options.top)
    from batchprobe.output.json_lines import JsonReport  # noqa: PLC0415  (likewise: json, too)

    return JsonReport(out)


def _command(text: str | None) -> list[str] | None:
    if text is None:
        return None
    import shlex  # noqa: PLC0415  (most runs have no command, and start sooner)
    import shutil  # noqa: PLC0415
    import subprocess  # noqa: F401, PLC0415  (before its import makes hits)

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"-c {text!r}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"-c {text!r}: no such command")
    return words


def _end_of(child: subprocess.Popen[bytes] | None) -> int:
    """The command's exit status as a shell gives it; one still running is asked to end."""
    if child is None:
        return 0
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    code = child.wait()
    return 128 - code if code < 0 else code


@contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        stream = open(path, "w")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield stream
    finally:
        # Every line was flushed: what cannot be written now could not be then, and was told.
        with suppress(OSError):
            stream.close()
