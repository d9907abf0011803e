"""A small process that outlives this one and removes what a kill left behind.

What hangs on a file descriptor goes with the process; trace events and the RCU knob do not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from batchprobe.barrier import BarrierMode
from batchprobe.watch import DISMISSED

__all__ = ["Guardian"]

# What ends the parent often goes to every process of its unit, or of its name: blocked from the
# first moment on, none of these ends the guardian, which goes by itself when the parent does.
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "watch.py")


class Guardian:
    """Started before the first thing that a kill could leave; dismissed when all is removed.

    `mode` says how it may wait for grace periods in our place. Raises OSError if it cannot start.
    """

    def __init__(self, mode: BarrierMode) -> None:
        # Nothing of the site's or of the working directory's, which may be somebody else's.
        command = (sys.executable, "-P", "-s", "-S", _SCRIPT, str(os.getpid()), mode.value)
        reader, self._writer = os.pipe()
        try:
            # Not subprocess, which takes longer to import than the kernel to start a process.
            self._pid = os.posix_spawn(
                sys.executable,
                command,
                os.environ,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    # A terminal or pipe of the parent's must not stay open because of us; what else
                    # it inherited the script closes.
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ),
                setsid=True,
                setsigmask=_NOT_FOR_US,
            )
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)

    def dismiss(self) -> None:
        """Nothing is left to guard."""
        if is_ours := not self._waited(os.WNOHANG):
            # Not only asked to go: it may still be starting, and does nothing while we live. Who
            # gave up rights since may not kill it.
            with contextlib.suppress(PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, DISMISSED)
        os.close(self._writer)
        if is_ours:
            self._waited(0)

    def _waited(self, options: int) -> bool:
        """Whether it has ended, and its number may be somebody else's by now."""
        try:
            return os.waitpid(self._pid, options)[0] != 0
        except ChildProcessError:
            # The program that we are part of waits for every child, or for none.
            return True
