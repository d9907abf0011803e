# SPDX-License-Identifier: Apache-2.0
"""Signals are answered at once, and once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

BEGIN = """
import ctypes
from batchprobe.cli.signals import Stop
from batchprobe.output.progress import ProgressBar

stop = Stop()
stop.busy = lambda: "a moment"
"""

# The parent of a vfork waits in the kernel until the child ends, and no signal interrupts it. Here
# the child ends when it has read a byte.
LONG_CALL = """
CLONE_VM, CLONE_VFORK, SIGCHLD = 0x100, 0x4000, 17
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(1 << 16)
top = (ctypes.addressof(stack) + len(stack)) & -16
stdin = ctypes.c_void_p.in_dll(libc, "stdin")
with ProgressBar(stop.answer_pending) as bar:
    bar("attach", 0, 2)
    print("calling", flush=True)
    child = libc.clone(libc.fgetc, ctypes.c_void_p(top), CLONE_VM | CLONE_VFORK | SIGCHLD, stdin)
print(child > 0, stop.number)
"""

WAIT = """
with ProgressBar(stop.answer_pending) as bar:
    bar("attach", 0, 2)
    print("calling", flush=True)
    while not stop.wait(60):
        pass
print(stop.number)
"""


@contextmanager
def running(script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is in its call."""
    with subprocess.Popen(
        (sys.executable, "-c", BEGIN + script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def give_up() -> None:
            assert process.stdin is not None
            process.kill()
            process.stdin.close()

        # Instead of a test that waits for ever.
        killer = threading.Timer(30, give_up)
        killer.start()
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "calling\n"
            time.sleep(0.1)
            yield process
        finally:
            killer.cancel()
            process.kill()


def test_a_signal_is_answered_before_a_long_call_ends_and_once() -> None:
    with running(LONG_CALL) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while (line := process.stderr.readline()) != "batchprobe: a moment\n":
            # Progress may come first.
            assert line
        # Long enough for another answer.
        time.sleep(0.5)
        assert process.poll() is None
        out, rest = process.communicate("x")
    assert out == "True 2\n"
    assert "a moment" not in rest


def test_a_signal_that_interrupts_a_call_is_answered_once() -> None:
    with running(WAIT) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("2\n", "batchprobe: a moment\n")
