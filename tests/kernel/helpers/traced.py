# SPDX-License-Identifier: Apache-2.0
"""Which kernel functions this process calls, seen with the kernel's own tracer."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator

from helpers.machine import PLACES, TRACEFS

__all__ = ["define", "traced"]


def define(command: str) -> None:
    """Write one command to kprobe_events."""
    # Not open(..., "a"): it seeks to the end, which the file refuses.
    fd = os.open(TRACEFS / "kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, f"{command}\n".encode())
    finally:
        os.close(fd)


@contextlib.contextmanager
def traced(*functions: str, anybody: bool = False) -> Iterator[Callable[[], Counter[str]]]:
    """Within this block, tell how often each of the functions was called so far.

    By this thread, or, if asked for, by anybody.
    """
    who = r"\d+" if anybody else os.getpid()
    group = f"by_hand_{os.getpid()}"
    instance = TRACEFS / "instances" / group

    # Of an event, and of the function tracer.
    line = re.compile(rf"-{who} .*: (\w+)(?:: \(| <-)")

    def calls() -> Counter[str]:
        return Counter(line.findall((instance / "trace").read_text()))

    with contextlib.ExitStack() as undo:
        if "entry" not in PLACES:
            # A breakpoint's handler counts as an NMI (riscv64), and the buffer takes nothing there.
            instance.mkdir()
            undo.callback(instance.rmdir)
            (instance / "set_ftrace_filter").write_text("\n".join(functions))
            undo.callback((instance / "current_tracer").write_text, "nop")
            (instance / "current_tracer").write_text("function")
            yield calls
            return
        for function in functions:
            define(f"p:{group}/{function} {function}")
            undo.callback(define, f"-:{group}/{function}")
        instance.mkdir()
        # Undone first: events that an instance uses cannot be deleted.
        undo.callback(instance.rmdir)
        for function in functions:
            (instance / "events" / group / function / "enable").write_text("1")
        yield calls
