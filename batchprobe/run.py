"""The main job, from a list to a summary: attach, count, stop, commit, show."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from batchprobe.errors import AttachCancelledError, BatchprobeError, NothingAttachedError
from batchprobe.probe import Probe
from batchprobe.report import JsonReport, Report, Summary, TextReport, tell, tell_skips
from batchprobe.screen import LiveTable, Stages
from batchprobe.session import Session
from batchprobe.signals import Stop
from batchprobe.spec import ProbeSpec

__all__ = ["AttachOptions", "attach_and_count"]

_COMMAND_POLL_SECONDS = 0.02
_SKIPPED_STATUS = 4
_LEFT_STATUS = 5


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What `batchprobe attach` was asked for."""

    duration: float | None
    interval: float | None
    as_json: bool
    strict: bool
    abi: str
    placement: str
    barrier: str
    top: int | None
    command: str | None
    output: Path | None


class UsageError(BatchprobeError):
    """An option that cannot be followed."""

    exit_status = 2


def attach_and_count(specs: Sequence[ProbeSpec], options: AttachOptions, stop: Stop) -> int:
    """Run until the duration is over, the command ends or a signal comes; the exit status.

    Whatever happens meanwhile, the probes are detached and the summary is written.
    """
    command = _command(options.command)
    summary = Summary()
    with _output(options.output) as out:
        report: Report = JsonReport(out) if options.as_json else TextReport(out, top=options.top)
        session = Session(abi=options.abi, placement=options.placement, barrier=options.barrier)
        try:
            probes = _attach(session, specs, summary, stop)
        except (NothingAttachedError, AttachCancelledError) as error:
            _describe(summary, session, [])
            tell_skips(session.skipped)
            session.close()
            report.end(summary)
            if isinstance(error, AttachCancelledError):
                tell(str(error))
                return 128 + stop.number
            raise
        tell_skips(session.skipped)
        live = not options.as_json and options.interval is None and out.isatty()
        child: subprocess.Popen[bytes] | None = None
        stop.busy = lambda: f"still removing {len(probes)} probes: a moment"
        broken: BaseException | None = None
        try:
            child = None if command is None else subprocess.Popen(command)
            if live:
                with LiveTable(top=options.top) as table:
                    _count(session, options, stop, child, table)
            else:
                _count(session, options, stop, child, report)
        except (OSError, KeyboardInterrupt) as error:
            # A closed pipe, a full disk, a command that cannot start: the probes come off first.
            broken = error

        def final() -> None:
            nonlocal broken
            try:
                report.final({probe.label: probe.count for probe in probes})
            except OSError as error:
                broken = broken or error

        summary.commit = session.detach_all(final)
        session.close()
        _describe(summary, session, probes)
        try:
            report.end(summary)
        except OSError as error:
            broken = broken or error
        status = _end_of(child)
    if broken is not None:
        # What could not be written is gone; flushing it again at exit would only fail again.
        _forget_stdout(broken)
        tell(f"error: {broken}")
        status = status or 1
    if summary.commit.left:
        return _LEFT_STATUS
    if status:
        return status
    return _SKIPPED_STATUS if options.strict and session.skipped else 0


def _attach(
    session: Session, specs: Sequence[ProbeSpec], summary: Summary, stop: Stop
) -> list[Probe]:
    began = time.perf_counter()
    try:
        with Stages() as stages:
            return session.attach(specs, progress=stages, cancelled=stop.is_set)
    finally:
        summary.attach_seconds = time.perf_counter() - began


def _describe(summary: Summary, session: Session, probes: Sequence[Probe]) -> None:
    summary.abi = "+".join(sorted({probe.abi for probe in probes}))
    summary.placement = "+".join(sorted({probe.placement for probe in probes}))
    summary.skipped = session.skipped
    summary.left_out = session.left_out
    summary.hits = {probe.label: probe.count for probe in probes}
    summary.missed = session.missed() if probes else None
    summary.barrier_note = session.barrier_note


def _count(
    session: Session,
    options: AttachOptions,
    stop: Stop,
    child: subprocess.Popen[bytes] | None,
    show: Report | LiveTable,
) -> None:
    """Show counts until it is time to stop."""
    began = time.monotonic()
    end = began + options.duration if options.duration is not None else None
    step = options.interval or (1.0 if isinstance(show, LiveTable) else None)
    due = began + step if step else None
    before: dict[str, int] = {}
    while not stop.is_set() and (child is None or child.poll() is None):
        now = time.monotonic()
        if end is not None and now >= end:
            break
        if due is not None and step is not None and now >= due:
            total = {probe.label: count for probe, count in session.counts().items()}
            delta = {label: count - before.get(label, 0) for label, count in total.items()}
            if isinstance(show, LiveTable):
                show.update(now - began, total, delta)
            else:
                show.counts(now - began, delta)
            before = total
            due += step * max(1, (now - due) // step + 1)
        waits = [t - now for t in (end, due) if t is not None]
        if child is not None:
            waits.append(_COMMAND_POLL_SECONDS)
        stop.wait(max(min(waits), 0.0) if waits else None)


def _command(text: str | None) -> list[str] | None:
    if text is None:
        return None
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


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        stream = path.open("w")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    with stream:
        yield stream


def _forget_stdout(error: BaseException) -> None:
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
