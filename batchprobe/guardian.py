"""A small process that outlives this one and removes what a kill left behind.

What hangs on a file descriptor goes with the process; trace events and the RCU knob do not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from batchprobe.barrier import BarrierMode
from batchprobe.watch import DISMISSED

__all__ = ["Guardian"]

_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SCRIPT = Path(__file__).with_name("watch.py")


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
                # Nothing of the site's or of the working directory's, which may be somebody else's.
                (sys.executable, "-P", "-s", "-S", _SCRIPT, str(os.getpid()), mode.value),
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
            self._process.communicate(DISMISSED)
        except BrokenPipeError:
            self._process.wait()
