# SPDX-License-Identifier: Apache-2.0
"""`batchprobe cleanup`: remove what killed batchprobe processes left in the kernel."""

from __future__ import annotations

from batchprobe.cleanup.sweep import sweep
from batchprobe.errors import ExitStatus
from batchprobe.kernel.host import require_tracing
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.output.stderr import say

__all__ = ["remove_stale"]

# The kernel closes a dead process's perf fds a little after its death; its event is busy till then.
_PATIENCE_SECONDS = 2.0


def remove_stale() -> int:
    """Remove it, and print what; returns the exit status."""
    require_tracing()
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
