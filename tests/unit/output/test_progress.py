# SPDX-License-Identifier: Apache-2.0
"""Progress from the first second on, and silence where nothing takes one."""

from __future__ import annotations

import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

import pytest

from batchprobe.output import progress
from batchprobe.output.progress import ProgressBar


@pytest.fixture(autouse=True)
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second takes 50 ms."""
    for part in ("FIRST_LINE", "BETWEEN_LINES", "MOST_BETWEEN_LINES", "DRAW_AFTER", "REDRAW"):
        name = f"_{part}_SECONDS"
        monkeypatch.setattr(progress, name, getattr(progress, name) / 20)


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().err.splitlines()


def test_what_is_over_within_a_second_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        bar("resolve", 0, 1)
        bar("attach", 5, 10)
    time.sleep(0.1)
    assert said(capfd) == []


def test_a_line_after_a_second_without_a_further_call(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        bar("resolve", 0, 1)
        time.sleep(0.2)
    assert said(capfd) == ["batchprobe: reading the kernel's symbols"]


def test_then_few_lines_with_the_newest_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            bar("attach", int(20 * (time.monotonic() - began)), 20)
            time.sleep(0.01)
    lines = said(capfd)
    # After 1, 6 and 12 of these seconds; on a busy machine later.
    assert 1 <= len(lines) <= 3
    numbers = [int(line.split()[2]) for line in lines]
    assert lines == [f"batchprobe: attaching: {number} of 20" for number in numbers]
    assert numbers == sorted(set(numbers))


def test_each_block_begins_anew(capfd: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    for stage in ("attach", "reclaim"):
        with bar:
            bar(stage, 0, 3)
            time.sleep(0.2)
        bar(stage, 3, 3)
    assert said(capfd) == [
        "batchprobe: attaching: 0 of 3",
        "batchprobe: removing the probes: 0 of 3",
    ]


def test_a_block_that_reports_nothing_starts_no_thread() -> None:
    with ProgressBar() as bar:
        assert bar._writer is None


@contextmanager
def terminal() -> Iterator[int]:
    """Standard error is a terminal within the block. Not a fixture: pytest captures anew after
    those.
    """
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    before = os.dup(2)
    os.dup2(slave, 2)
    with os.fdopen(slave, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield master
    os.dup2(before, 2)
    os.close(before)
    os.close(master)


def until_shown(screen: int, words: str, after: str = "") -> str:
    """What comes `after` this, until it has the words: a terminal passes it on a little later."""
    incoming = select.poll()
    incoming.register(screen, select.POLLIN)
    shown = after
    while words not in shown:
        assert incoming.poll(30_000), f"not shown: {words!r} in {shown!r}"
        shown += os.read(screen, 1 << 16).decode()
    return shown


def test_a_terminal_has_a_bar_that_goes_away() -> None:
    with terminal() as screen:
        with ProgressBar() as bar:
            bar("attach", 5, 10)
            shown = until_shown(screen, "5 of 10")
        assert "attaching ##########---------- 5 of 10 (" in shown
        until_shown(screen, "\r\x1b[K", after=shown.partition("attaching")[2])


def test_a_terminal_that_is_closed_stops_nothing() -> None:
    with terminal(), ProgressBar() as bar:
        bar("attach", 5, 10)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 2)
        os.close(null)
        time.sleep(0.2)
        bar("attach", 6, 10)
