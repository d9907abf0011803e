# SPDX-License-Identifier: Apache-2.0
"""The moments at which the kprobes of a script must be armed: before anybody could see whether
they are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, RLock, Thread, current_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, SupportsIndex, TextIO

__all__ = ["Moments", "unwatched"]

# bcc loads a program between two attaches: 50 ms made two kernel objects of one run.
_QUIET_SECONDS = 0.2
# Audit events (docs.python.org, "Audit events table") after which other code may run.
_STARTS = frozenset(
    {
        "builtins.input",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "pty.spawn",
        "subprocess.Popen",
    }
)


_FORKS = frozenset({"os.fork", "os.forkpty"})


class Moments:
    """Calls `settle` before the script prints, sleeps or starts a process, and, after `wake`, when
    `quiet_since()` is 200 ms ago. `settle` is cheap if there is nothing to do.
    """

    def __init__(self, settle: Callable[[], None], quiet_since: Callable[[], float]) -> None:
        self._settle = settle
        self._quiet_since = quiet_since
        # Reentrant because a signal handler may attach or detach.
        self._lock = RLock()
        self._watcher: Thread | None = None
        self._stop = Event()
        self._is_on = False
        # Before anything is patched.
        self._sleep = time.sleep
        self._streams: dict[str, _Stream] = {}

    def begin(self) -> None:
        """From now on."""
        self._is_on = True
        # An audit hook cannot be removed.
        sys.addaudithook(self._audit)
        for name in ("stdout", "stderr"):
            # None if the descriptor is closed.
            if (stream := getattr(sys, name)) is not None:
                self._streams[name] = _Stream(stream, self._settle)
                setattr(sys, name, self._streams[name])

        def sleep(seconds: float | SupportsIndex, /) -> None:
            if self._is_on:
                self._settle()
            self._sleep(seconds)

        self._patched_sleep = sleep
        time.sleep = sleep

    def end(self) -> None:
        """From now on no more. Who imported `sleep` meanwhile keeps one that does nothing else."""
        self._is_on = False
        if time.sleep is self._patched_sleep:
            time.sleep = self._sleep
        for name, stream in self._streams.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.wrapped)
        self.stop_watcher()

    def wake(self) -> None:
        """Something waits: settle when it has been quiet for a while."""
        # At the interpreter's exit no thread can be started any more, and all is settled anyway.
        with self._lock, suppress(RuntimeError):
            if self._watcher is None and self._is_on:
                self._stop = Event()
                watcher = Thread(target=self._watch, name="batchprobe", daemon=True)
                watcher.start()
                self._watcher = watcher

    def stop_watcher(self) -> None:
        """End our thread; the next `wake` starts another one."""
        with self._lock:
            watcher, self._watcher = self._watcher, None
        self._stop.set()
        if watcher is not None:
            watcher.join()

    def _audit(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _STARTS and self._is_on:
            self._settle()
            if event in _FORKS:
                # Python warns of a fork with several threads, and the child would have no watcher.
                self.stop_watcher()

    def _watch(self) -> None:
        while (rest := self._quiet_since() + _QUIET_SECONDS - time.monotonic()) > 0:
            if self._stop.wait(rest):
                return
        with self._lock:
            if self._watcher is not current_thread():
                return
            # From here on, what is attached needs another one.
            self._watcher = None
        self._settle()


class _Stream:
    """Standard output or error, before whose every write the kprobes are armed."""

    def __init__(self, wrapped: TextIO, settle: Callable[[], None]) -> None:
        self.wrapped = wrapped
        self._settle = settle

    def write(self, text: str) -> int:
        self._settle()
        return self.wrapped.write(text)

    def writelines(self, lines: Any) -> None:
        self._settle()
        self.wrapped.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def __iter__(self) -> Any:
        return iter(self.wrapped)


def unwatched(stream: TextIO) -> TextIO:
    """The stream whose writes arm nothing."""
    return stream.wrapped if isinstance(stream, _Stream) else stream
