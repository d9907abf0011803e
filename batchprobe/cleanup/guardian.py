# SPDX-License-Identifier: Apache-2.0
"""Starts, prepares and dismisses the guardian: a process that cleans up if this one is killed."""

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

# systemd and killall signal the parent's whole unit, or every process of its name. The guardian is
# started with these blocked; it exits on its own once the parent is gone.
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A Python takes as long to start as everything before the first armed probe. So a shell waits at
# first, and becomes the Python when a line or the end of the pipe arrives. It exits if dismissed.
_SHELL = "/bin/sh"
_WAIT = f'read -r word && [ "$word" = {_DISMISSED} ] && exit; exec "$@"'
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guardian_main.py")


class Guardian:
    """The guardian of this process; `guardian_main` is the program it runs.

    Start it before anything is created that a kill would leave in the kernel. `mode` says whether
    it may expedite grace periods. Raises OSError if it cannot be started.
    """

    def __init__(self, mode: BarrierMode) -> None:
        # Import nothing from site-packages or from the working directory: others may write there.
        python = (sys.executable, "-P", "-s", "-S")
        script = (_SCRIPT, str(os.getpid()), mode.value, _DISMISSED)
        reader = -1

        def pipe() -> int:
            nonlocal reader
            reader, writer = os.pipe()
            return writer

        # Noted, so that a forked child closes its copy: the shell waits for the end of the pipe.
        self._writer = fds.open_noted(pipe)
        self._prepared = False
        try:
            # Not subprocess, whose import takes longer than the start of a process.
            self._pid = os.posix_spawn(
                _SHELL,
                (_SHELL, "-c", _WAIT, _SHELL, *python, *script),
                os.environ,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    # Keep no terminal or pipe of the parent open: its reader may wait for the end.
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
                ),
                setsid=True,
                setsigmask=_BLOCKED,
            )
        except BaseException:
            fds.close(self._writer)
            raise
        finally:
            os.close(reader)

    def prepare(self) -> None:
        """Replace the shell by the Python, which soon imports all that a clean-up needs.

        From then on it can clean up without the package's files, and with little memory.
        """
        if not self._prepared:
            self._prepared = True
            self._send("\n")

    def dismiss(self) -> None:
        """End it: nothing is left to clean up."""
        if is_child := not self._has_ended(os.WNOHANG):
            # Killed, because a Python that is starting reads no message yet. Not permitted if this
            # process has dropped privileges; then the message ends it.
            with suppress(PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        self._send(f"{_DISMISSED}\n")
        fds.close(self._writer)
        if is_child:
            self._has_ended(0)

    def _send(self, message: str) -> None:
        with suppress(BrokenPipeError):  # somebody killed it
            os.write(self._writer, message.encode())

    def _has_ended(self, options: int) -> bool:
        """Call waitpid(2); whether it has ended, so that its PID may be another process's."""
        try:
            return os.waitpid(self._pid, options)[0] != 0
        except ChildProcessError:
            # The program we run in waits for every child itself, or ignores SIGCHLD.
            return True


def _inheritable() -> Iterator[int]:
    """The descriptors above 2 that a child would inherit."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the descriptor of the listing is closed by now
            if fd > 2 and os.get_inheritable(fd):
                yield fd
