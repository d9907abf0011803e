# SPDX-License-Identifier: Apache-2.0
"""The live table fits the terminal, and leaves it as it was."""

from __future__ import annotations

import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import pytest
from rich.console import Console
from test_text import of_probes

from batchprobe.actions import Count
from batchprobe.output.live import LiveSink

MANY = {f"function_{n:02}_" + "x" * 200: n for n in range(100)}
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"

SCRIPT = """
import sys, time
from batchprobe.actions import Count
from batchprobe.output.live import LiveSink
with LiveSink(Count()) as sink:
    for _ in range(1000):
        sink.interval(1.0, {}, {})
        time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("height", "top", "rows"), [(24, None, 20), (24, 60, 20), (24, 5, 5), (3, None, 1)]
)
def test_the_table_fits_the_screen(height: int, top: int | None, rows: int) -> None:
    sink = LiveSink(Count(), top=top)
    sink._console = Console(width=60, height=height)
    with sink._console.capture() as screen:
        sink._console.print(sink._screen(7.0, of_probes(MANY), {}))
    title, heads, *shown, last = screen.get().splitlines()
    assert title == "7 s: 100 probes, 99 with 4950 hits; Ctrl-C stops"
    assert heads.split() == ["HITS", "NOW", "FUNCTION"]
    assert [row.split()[0] for row in shown] == [str(99 - n) for n in range(rows)]
    assert last == f"… {99 - rows} more"


def test_a_table_that_is_whole_says_so_by_saying_nothing() -> None:
    sink = LiveSink(Count())
    sink._console = Console(width=60, height=24)
    with sink._console.capture() as screen:
        sink._console.print(sink._screen(7.0, of_probes({"one": 1, "two": 0}), {}))
    assert "more" not in screen.get()
    assert screen.get().startswith("7 s: 2 probes, 1 with 1 hit; Ctrl-C stops")


class Terminal:
    """A process on a terminal of its own, with what it wrote so far."""

    def __init__(self, script: str) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(
            (sys.executable, "-c", script),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
            # The kernel stops no process of a session without a shell.
            process_group=0,
        )
        os.close(slave)
        self.written = b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 30
        while text not in self.written:
            assert time.monotonic() < deadline, self.written
            time.sleep(0.01)
            self.read()

    def read(self) -> None:
        try:
            while data := os.read(self._master, 65536):
                self.written += data
        except OSError:
            # Nothing to read now, or the process has ended.
            return

    def state(self) -> str:
        with open(f"/proc/{self.process.pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_a_stopped_process_gives_the_cursor_back() -> None:
    terminal = Terminal(SCRIPT)
    try:
        terminal.until(HIDE)
        terminal.until(b"Ctrl-C stops")
        # More than once, because each stop has to be handled anew.
        for _ in range(2):
            terminal.process.send_signal(signal.SIGTSTP)
            deadline = time.monotonic() + 30
            while terminal.state() != "T":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            terminal.read()
            assert terminal.written.rindex(SHOW) > terminal.written.rindex(HIDE)
            terminal.written = b""
            terminal.process.send_signal(signal.SIGCONT)
            terminal.until(HIDE)
            terminal.until(b"Ctrl-C stops")
    finally:
        terminal.close()
