# SPDX-License-Identifier: Apache-2.0
"""Counts calls of kernel functions, with the kernel's own tracer."""

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
def traced(*functions: str, any_task: bool = False) -> Iterator[Callable[[], Counter[str]]]:
    """Yield a function that returns how often each of `functions` was called in this block.

    Counts calls of the main thread, or with `any_task` those of all tasks.
    """
    task = r"\d+" if any_task else os.getpid()
    group = f"by_hand_{os.getpid()}"
    instance = TRACEFS / "instances" / group

    # A line of a trace event, or of the function tracer.
    line = re.compile(rf"-{task} .*: (\w+)(?:: \(| <-)")

    def calls() -> Counter[str]:
        return Counter(line.findall((instance / "trace").read_text()))

    with contextlib.ExitStack() as undo:
        if "entry" not in PLACES:
            # On riscv64 a breakpoint's handler counts as an NMI, where the buffer records nothing.
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
        # Undone first, because events that an instance uses cannot be deleted.
        undo.callback(instance.rmdir)
        for function in functions:
            (instance / "events" / group / function / "enable").write_text("1")
        yield calls
