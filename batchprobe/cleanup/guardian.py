# SPDX-License-Identifier: Apache-2.0
"""Starts, prepares and dismisses the guardian: a process that cleans up if this one is killed, and
removes what this one does not wait for.
"""

from __future__ import annotations

import os
import signal
import sys
from _socket import socketpair
from collections.abc import Iterator
from contextlib import suppress

from batchprobe.commit.barrier import BarrierMode
from batchprobe.sys import fds

__all__ = ["LAST", "MORE", "Guardian"]

_DISMISSED = "."
MORE, LAST = "+", "!"
"""Descriptors are handed over; all were handed over."""

# systemd and killall signal the parent's whole unit, or every process of its name. The guardian is
# started with these blocked; it exits on its own once the parent is gone.
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A Python takes as long to start as everything before the first armed probe. So a shell waits at
# first, and becomes the Python when a line or the end of the socket arrives. It exits if dismissed.
_SHELL = "/bin/sh"
_WAIT = f'read -r word && [ "$word" = {_DISMISSED} ] && exit; exec "$@"'
_unwaited: list[int] = []
"""Guardians that were busy when they were dismissed, which end by themselves."""
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guardian_main.py")


class Guardian:
    """The guardian of this process; `guardian_main` is the program it runs.

    Start it before anything is created that a kill would leave in the kernel. `mode` says whether
    it may expedite grace periods. Raises OSError if it cannot be started.
    """

    def __init__(self, mode: BarrierMode) -> None:
        _unwaited[:] = [pid for pid in _unwaited if not _has_ended(pid, os.WNOHANG)]
        # Import nothing from site-packages or from the working directory: others may write there.
        python = (sys.executable, "-P", "-s", "-S")
        script = (_SCRIPT, str(os.getpid()), mode.value, _DISMISSED, MORE, LAST)
        theirs = -1

        def connect() -> int:
            nonlocal theirs
            # A pipe could carry no descriptors.
            ours, other = socketpair()
            theirs = other.detach()
            return ours.detach()

        # Noted, so that a forked child closes its copy: the shell waits for the end of the socket.
        self.socket = fds.open_noted(connect)
        self._prepared = False
        self.is_busy = False
        """Whether it removes something, as far as is known."""
        try:
            # Not subprocess, whose import takes longer than the start of a process.
            self._pid = os.posix_spawn(
                _SHELL,
                (_SHELL, "-c", _WAIT, _SHELL, *python, *script),
                os.environ,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, theirs, 0),
                    # Keep no terminal or pipe of the parent open: its reader may wait for the end.
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
                ),
                setsid=True,
                setsigmask=_BLOCKED,
            )
        except BaseException:
            fds.close(self.socket)
            raise
        finally:
            os.close(theirs)

    def prepare(self) -> None:
        """Replace the shell by the Python, which soon imports all that a clean-up needs.

        From then on it can clean up without the package's files, and with little memory.
        """
        if not self._prepared:
            self._prepared = True
            self._send("\n")

    def dismiss(self) -> None:
        """End it: nothing is left to clean up, except for what it is removing."""
        if self.is_busy:
            self._send(_DISMISSED)
            fds.close(self.socket)
            _unwaited.append(self._pid)
            return
        if is_child := not self.has_ended():
            # Killed, because a Python that is starting reads no message yet. Not permitted if this
            # process has dropped privileges; then the message ends it.
            with suppress(PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        self._send(f"{_DISMISSED}\n")
        fds.close(self.socket)
        if is_child:
            _has_ended(self._pid, 0)

    def has_ended(self) -> bool:
        """Whether the process is gone, and what only it kept open is closed."""
        return _has_ended(self._pid, os.WNOHANG)

    def _send(self, message: str) -> None:
        with suppress(ConnectionError):  # somebody killed it
            os.write(self.socket, message.encode())


def _has_ended(pid: int, options: int) -> bool:
    """Call waitpid(2); whether it has ended, so that its PID may be another process's."""
    try:
        return os.waitpid(pid, options)[0] != 0
    except ChildProcessError:
        # The program we run in waits for every child itself, or ignores SIGCHLD.
        return True


def _inheritable() -> Iterator[int]:
    """The descriptors above 2 that a child would inherit."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the descriptor of the listing is closed by now
            if fd > 2 and os.get_inheritable(fd):
                yield fd
