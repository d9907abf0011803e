"""A small process that outlives its parent and removes what a kill left behind.

What hangs on a file descriptor goes with the process; trace events and the RCU knob do not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from batchprobe import child
from batchprobe.barrier import BarrierMode
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.leftovers import sweep

__all__ = ["Guardian", "main"]

_DISMISSED = b"."
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The kernel closes the dead parent's perf fds, probes and all, before an event can go.
_PATIENCE = 60.0


class Guardian:
    """Started before the first thing that a kill could leave; dismissed when all is removed.

    `mode` says how it may wait for grace periods in our place.
    """

    def __init__(self, mode: BarrierMode) -> None:
        # What ends the parent often goes to every process of its unit, or of its name. The mask is
        # inherited, so none of these ends the guardian from its first moment on; it goes by itself
        # when the parent does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_US)
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                **child.arguments("guardian", str(os.getpid()), mode.value),
                stdin=subprocess.PIPE,
                # A terminal or pipe of the parent's must not stay open because of us.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def dismiss(self) -> None:
        """Nothing is left to guard."""
        # Not only asked to go: it may still be starting, and does nothing while we live. Who gave
        # up rights since may not kill it.
        with contextlib.suppress(PermissionError):
            self._process.kill()
        try:
            self._process.communicate(_DISMISSED)
        except BrokenPipeError:
            self._process.wait()


def main() -> int:
    """Wait for the parent's death or dismissal; stdin is a pipe from it."""
    parent = int(sys.argv[1])
    # The pipe alone would not do: a fork of the parent's holds its end open too.
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        parent_fd = -1
    if _parent() != parent:
        # It died before we asked, and its number may be somebody else's by now.
        parent_fd = -1
    watched = [0, parent_fd]
    while parent_fd >= 0:
        ready, _, _ = select.select(watched, [], [])
        if 0 in ready:
            if os.read(0, 1) == _DISMISSED:
                return 0
            watched.remove(0)
        if parent_fd in ready:
            break
    sweep(Tracefs.find(), patience=_PATIENCE, mode=BarrierMode(sys.argv[2]))
    return 0


def _parent() -> int:
    # Not getppid(2): a user may be counting that.
    stat = Path("/proc/self/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


if __name__ == "__main__":
    sys.exit(main())
