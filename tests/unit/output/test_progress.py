# SPDX-License-Identifier: Apache-2.0
"""Progress from the first second on, and silence where nothing takes one."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import sys
import termios
import threading
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
    for part in ("FIRST_LINE", "BETWEEN_LINES", "MOST_BETWEEN_LINES", "DRAW_AFTER", "TICK"):
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
    before = threading.active_count()
    with ProgressBar():
        assert threading.active_count() == before


@contextmanager
def terminal(kind: str = "xterm") -> Iterator[int]:
    """Standard error is a terminal within the block. Not a fixture: pytest captures anew after
    those.
    """
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    before = os.dup(2)
    os.dup2(slave, 2)
    try:
        with os.fdopen(slave, "w") as stream, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            patch.setenv("TERM", kind)
            patch.setenv("NO_COLOR", "1")
            for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
                patch.delenv(name, raising=False)
            yield master
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(master)


def until_shown(terminal: int, words: str, after: str = "") -> str:
    """What comes `after` this, until it has the words: a terminal passes it on a little later."""
    incoming = select.poll()
    incoming.register(terminal, select.POLLIN)
    shown = after
    while words not in shown:
        assert incoming.poll(5_000), f"not shown: {words!r} in {shown!r}"
        shown += os.read(terminal, 1 << 16).decode()
    return shown


_MOVE = re.compile(r"\x1b\[(?P<number>\d*)(?P<act>[AK])|\x1b\[\?25[hl]|(?P<text>.)", re.DOTALL)


def screen(written: str) -> list[str]:
    """The lines of a terminal after all this was written to it."""
    lines, row, column = [""], 0, 0
    for move in _MOVE.finditer(written):
        line = lines[row]
        if move["act"] == "A":
            row -= int(move["number"] or 1)
        elif move["act"] == "K":
            lines[row] = "" if move["number"] == "2" else line[:column]
        elif move["text"] == "\r":
            column = 0
        elif move["text"] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif text := move["text"]:
            lines[row] = f"{line[:column]:<{column}}{text}{line[column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines]


def test_a_terminal_has_a_bar_that_goes_away() -> None:
    with terminal() as master:
        with ProgressBar() as bar:
            bar("attach", 5, 10)
            shown = until_shown(master, "s)\r")
            assert re.fullmatch(r"attaching ━{10} +5 of 10 \(0 s\)", screen(shown)[0])
            bar("attach", 10, 10)
            shown = until_shown(master, "10 of 10", after=shown)
        os.write(2, b"attached\n")
        shown = until_shown(master, "attached", after=shown)
    assert screen(shown)[0] == "attached"
    assert not any(screen(shown)[1:])


def test_a_stage_without_numbers_has_a_bar_that_moves() -> None:
    with terminal() as master, ProgressBar() as bar:
        bar("resolve", 0, 1)
        shown = {screen(until_shown(master, "s)\r"))[0] for _ in range(20)}
    assert len(shown) > 1
    assert all(
        re.fullmatch(r"reading the kernel's symbols [━ ]{20}  \(\d s\)", line) for line in shown
    )


def test_a_bar_is_redrawn_while_the_main_thread_is_busy() -> None:
    with terminal() as master:
        with ProgressBar() as bar:
            bar("attach", 5, 10)
            began = time.monotonic()
            while time.monotonic() - began < 1.0:
                pass
        # A terminal hands out 4,095 bytes at most, and may cut a character.
        shown = os.read(master, 1 << 16).decode(errors="replace")
    assert shown.count("5 of 10") > 2


def test_a_message_overwrites_the_bar_and_stays() -> None:
    message = "stopping, when the kernel is done with what it is attaching"
    with terminal() as master:
        with ProgressBar() as bar:
            bar("attach", 5, 10)
            shown = until_shown(master, "s)\r")
            os.write(2, f"{message}\n".encode())
            shown = until_shown(master, "5 of 10", after=until_shown(master, message, after=shown))
        os.write(2, b"attached\n")
        shown = until_shown(master, "attached", after=shown)
    assert screen(shown)[:2] == [message, "attached"]


def test_the_cursor_is_not_hidden_while_a_bar_is_shown() -> None:
    with terminal() as master, ProgressBar() as bar:
        bar("attach", 5, 10)
        shown = until_shown(master, "s)\r")
        assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")


def test_a_terminal_that_cannot_erase_has_lines() -> None:
    with terminal("dumb") as master, ProgressBar() as bar:
        bar("attach", 5, 10)
        assert until_shown(master, "\n") == "batchprobe: attaching: 5 of 10\r\n"


def test_nothing_waits_for_a_bar_that_is_still_to_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    class SlowImport(ProgressBar):
        def _draw(self, over: threading.Event) -> None:
            begun.set()
            may_end.wait(30)
            super()._draw(over)
            ended.set()

    with terminal() as master:
        with SlowImport() as bar:
            bar("attach", 5, 10)
            assert begun.wait(30)
        with bar:
            may_end.set()
            assert ended.wait(30)
        os.write(2, b"attached\n")
        assert until_shown(master, "attached") == "attached\r\n"


@pytest.mark.filterwarnings("error")
def test_a_terminal_that_is_closed_stops_nothing() -> None:
    with terminal() as master, ProgressBar() as bar:
        bar("attach", 5, 10)
        until_shown(master, "5 of 10")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 2)
        os.close(null)
        time.sleep(0.2)
        bar("attach", 6, 10)
