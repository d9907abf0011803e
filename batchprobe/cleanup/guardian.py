"""A small process that outlives this one and removes what a kill left behind.

What hangs on a file descriptor goes with the process; trace events and the RCU knob do not.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

from batchprobe.commit.barrier import BarrierMode
from batchprobe.sys import fds

__all__ = ["Guardian"]

_DISMISSED = "."

# What ends the parent often goes to every process of its unit, or of its name: blocked from the
# first moment on, none of these ends the guardian, which goes by itself when the parent does.
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHELL = "/bin/sh"
# A Python takes as long to start as all that is done until the first probe is armed: until there
# is time for that, a shell waits. It goes where it is told so, and else becomes what cleans up.
_WAIT = f'read -r word && [ "$word" = {_DISMISSED} ] && exit; exec "$@"'
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guardian_main.py")


class Guardian:
    """Started before the first thing that a kill could leave; dismissed when all is removed.

    `mode` says how it may wait for grace periods in our place. Raises OSError if it cannot start.
    """

    def __init__(self, mode: BarrierMode) -> None:
        # Nothing of the site's or of the working directory's, which may be somebody else's.
        python = (sys.executable, "-P", "-s", "-S")
        script = (_SCRIPT, str(os.getpid()), mode.value, _DISMISSED)
        reader = -1

        def pipe() -> int:
            nonlocal reader
            reader, writer = os.pipe()
            return writer

        # A fork that held it open would keep the shell from seeing our end.
        self._writer = fds.open_noted(pipe)
        self._prepared = False
        try:
            # Not subprocess, which takes longer to import than the kernel to start a process.
            self._pid = os.posix_spawn(
                _SHELL,
                (_SHELL, "-c", _WAIT, _SHELL, *python, *script),
                os.environ,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    # A terminal or pipe of the parent's must not stay open because of us: somebody
                    # may wait for the end of it.
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()),
                ),
                setsid=True,
                setsigmask=_NOT_FOR_US,
            )
        except BaseException:
            fds.close(self._writer)
            raise
        finally:
            os.close(reader)

    def prepare(self) -> None:
        """There is time now: let it start and import what it may have to do.

        So it needs neither the package's files nor much memory once this process is dead.
        """
        if not self._prepared:
            self._prepared = True
            self._tell("\n")

    def dismiss(self) -> None:
        """Nothing is left to guard."""
        if is_ours := not self._waited(os.WNOHANG):
            # Not only asked to go: it may still be starting, and does nothing while we live. Who
            # gave up rights since may not kill it.
            with suppress(PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        self._tell(f"{_DISMISSED}\n")
        fds.close(self._writer)
        if is_ours:
            self._waited(0)

    def _tell(self, word: str) -> None:
        # Somebody killed it.
        with suppress(BrokenPipeError):
            os.write(self._writer, word.encode())

    def _waited(self, options: int) -> bool:
        """Whether it has ended, and its number may be somebody else's by now."""
        try:
            return os.waitpid(self._pid, options)[0] != 0
        except ChildProcessError:
            # The program that we are part of waits for every child, or for none.
            return True


def _inherited() -> Iterator[int]:
    """Descriptors that a process which we start would have, but for the first three."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        # The one which listed them is closed.
        with suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                yield fd
