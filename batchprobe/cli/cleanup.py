# SPDX-License-Identifier: Apache-2.0
"""`batchprobe cleanup`: remove what killed batchprobe processes left in the kernel."""

from __future__ import annotations

import math
import time

from batchprobe.cleanup.ongoing import is_ongoing
from batchprobe.cleanup.sweep import sweep
from batchprobe.cli.signals import Stop
from batchprobe.errors import ExitStatus
from batchprobe.kernel.host import require_tracing
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.output.stderr import say

__all__ = ["remove_stale"]

# The kernel closes a dead process's perf fds a little after its death; its event is busy till then.
_PATIENCE_SECONDS = 2.0
_POLL_SECONDS = 0.05


def remove_stale(stop: Stop, *, wait: bool) -> int:
    """Remove it, and print what; returns the exit status.

    With `wait`, wait first for removals that go on in the background, unless a signal comes.
    """
    require_tracing()
    # What they remove is stale, but busy.
    deadline = math.inf if wait else time.monotonic() + _PATIENCE_SECONDS
    while is_ongoing():
        if time.monotonic() > deadline:
            say("a background process removes probes: `batchprobe cleanup --wait` waits for it")
            return ExitStatus.OK
        if stop.wait(_POLL_SECONDS):
            return ExitStatus.SIGNALLED + stop.number
    swept = sweep(Tracefs.find(), patience=_PATIENCE_SECONDS)
    for name in swept.events:
        print(f"removed the trace event {name}")
    if swept.rcu_restored:
        print("restored rcu_expedited")
    if not (swept.events or swept.rcu_restored or swept.failed):
        say("nothing was left behind")
    for failure in swept.failed:
        say(f"error: {failure}")
    return ExitStatus.NOT_REMOVED if swept.failed else ExitStatus.OK
