# SPDX-License-Identifier: Apache-2.0
"""Counts this thread's waits for grace periods, with the kernel's function tracer."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from helpers.machine import PREFIX, TRACEFS

__all__ = ["counted_waits", "total"]

# Each call is one wait. If expedited, synchronize_rcu() and synchronize_srcu() wait in the
# functions of _INNER. Those are traced as well, because a direct call of one is also a wait.
_WAITS = (
    "synchronize_rcu",
    "synchronize_srcu",
    "synchronize_rcu_tasks",
    "synchronize_rcu_tasks_rude",
    "synchronize_rcu_tasks_trace",
)
_INNER = {
    "synchronize_rcu_expedited": "synchronize_rcu",
    "synchronize_srcu_expedited": "synchronize_srcu",
}
_CALLS = (f"{PREFIX}membarrier",)


def total(waits: Counter[str]) -> int:
    """The number of waits."""
    alone = sum(max(0, waits[inner] - waits[outer]) for inner, outer in _INNER.items())
    return alone + sum(waits[name] for name in _WAITS)


@contextlib.contextmanager
def counted_waits() -> Iterator[Callable[[], Counter[str]]]:
    """Yield a function that returns this thread's calls in this block, by function."""
    known = (TRACEFS / "available_filter_functions").read_text()
    wanted = [*_WAITS, *_INNER, *_CALLS]
    there = [name for name in wanted if re.search(rf"^{name}$", known, re.MULTILINE)]
    assert {"synchronize_rcu", "synchronize_srcu", *_CALLS} <= set(there)
    instance = TRACEFS / "instances" / f"waits_{os.getpid()}"
    thread = threading.get_native_id()

    # Reading the trace waits too, so another thread does it.
    reader = ThreadPoolExecutor(1)

    def calls() -> Counter[str]:
        text = reader.submit((instance / "trace").read_text).result()
        return Counter(re.findall(rf"-{thread} .*: (\w+) <-", text))

    instance.mkdir()
    try:
        (instance / "set_ftrace_filter").write_text("\n".join(there))
        (instance / "set_ftrace_pid").write_text(str(thread))
        (instance / "current_tracer").write_text("function")
        yield calls
    finally:
        (instance / "current_tracer").write_text("nop")
        instance.rmdir()
        reader.shutdown()
