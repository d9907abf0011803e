# SPDX-License-Identifier: Apache-2.0
"""Run commands, one in the foreground or several guests at once, and report each."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from types import FrameType
from typing import IO

Judge = Callable[[int], str | None]
"""Why an exit status is a failure, None if it is not."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# scripts/vm ends its guest on SIGTERM; one that does not is killed after this time.
_GRACE_SECONDS = 10.0


class Interrupted(BaseException):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that reports it."""
        return 128 + self.number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, signals that end a process raise Interrupted instead."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if _Held.depth:
            _Held.number = _Held.number or number
        else:
            raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Held:
    """A signal that waits for the end of `_held_back`."""

    depth = 0
    number = 0


@contextmanager
def _held_back() -> Iterator[None]:
    """Within the block a signal waits. It is not blocked, which a child process would inherit."""
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
    number, _Held.number = _Held.number, 0
    if number:
        raise Interrupted(number)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Command:
    """A command and its name in the output."""

    name: str
    argv: Sequence[str]


def foreground(command: Command, judge: Judge) -> bool:
    """Run one command on this terminal; whether it passed."""
    _say(f"== {command.name}")
    began = time.monotonic()
    process = subprocess.Popen(command.argv)
    try:
        status = process.wait()
    except Interrupted as interrupted:
        _wind_down(process, interrupted.number)
        raise
    return _report(command, status, began, judge)


def _wind_down(process: subprocess.Popen[bytes], number: int) -> None:
    """Let pytest tear its fixtures down; a second signal kills it."""
    try:
        # The terminal sent Ctrl-C to both of us.
        if number != signal.SIGINT:
            process.send_signal(signal.SIGINT)
        process.wait()
    except Interrupted:
        process.kill()
        process.wait()
        raise


@dataclass
class _Guest:
    command: Command
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    pidfd: int
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, command: Command) -> _Guest:
        _say(f"== {command.name} begins")
        log = TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            # If we are killed, the guest ends too.
            ["setpriv", "--pdeathsig", "TERM", "--", *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Out of Ctrl-C's reach: we end it.
            process_group=0,
        )
        return cls(command, process, log, os.pidfd_open(process.pid))

    def show(self) -> None:
        """Print the log."""
        _say(f"== {self.command.name}")
        self.log.seek(0)
        shutil.copyfileobj(self.log, sys.stdout.buffer)
        sys.stdout.flush()

    def close(self) -> None:
        os.close(self.pidfd)
        self.log.close()


def guests(commands: Iterable[Command], at_once: int, judge: Judge) -> list[str]:
    """Run up to `at_once` at a time, print each log at its end; the names of those that failed."""
    waiting = deque(commands)
    running: dict[int, _Guest] = {}
    failed = []
    poll = select.poll()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                # A guest that has started has to be known, to be ended too.
                with _held_back():
                    guest = _Guest.start(waiting.popleft())
                    running[guest.pidfd] = guest
                poll.register(guest.pidfd, select.POLLIN)
            for pidfd, _ in poll.poll():
                guest = running[pidfd]
                status = guest.process.wait()
                guest.show()
                if not _report(guest.command, status, guest.began, judge):
                    failed.append(guest.command.name)
                poll.unregister(pidfd)
                del running[pidfd]
                guest.close()
    finally:
        if running:
            with _uninterrupted():
                _end(running.values())
    return failed


def _end(running: Iterable[_Guest]) -> None:
    for guest in running:
        guest.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for guest in running:
        try:
            guest.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(guest.process.pid, signal.SIGKILL)
            guest.process.wait()
        guest.show()
        _say(f"== {guest.command.name}: interrupted")
        guest.close()


def _report(command: Command, status: int, began: float, judge: Judge) -> bool:
    why = judge(status)
    _say(f"== {command.name}: {why or 'ok'}, {time.monotonic() - began:.0f} s")
    return why is None


def _say(line: str) -> None:
    print(line, flush=True)
