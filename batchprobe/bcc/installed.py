# SPDX-License-Identifier: Apache-2.0
"""Puts a batch between bcc's Python and its C library, in this process."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from batchprobe.bcc.batch import Batch, Summary
from batchprobe.bcc.library import Library
from batchprobe.bcc.moments import Moments
from batchprobe.bcc.session import ToolSession
from batchprobe.errors import BatchprobeError, SessionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Installed", "flush", "install", "say", "uninstall"]

_KPROBE_EVENTS = (b"p_", b"r_")
_installed: Installed | None = None


class Installed:
    """bcc's kprobes of this process go through a batch, until `uninstall`.

    `make_session` is called when bcc attaches its first kprobe. `at_end` is called with the summary
    when the interpreter exits, after everything was removed. `is_filtered` is as in `Batch`.

    Raises UnsupportedError without bcc, SessionError if there is another one: bcc's library is one
    per process, too.
    """

    def __init__(
        self,
        make_session: Callable[[], ToolSession],
        at_end: Callable[[Summary], None] | None = None,
        *,
        is_filtered: bool = False,
    ) -> None:
        global _installed  # noqa: PLW0603  (see above)
        if _installed is not None:
            raise SessionError("batchprobe.bcc is installed already")
        self._make_session = make_session
        self._is_filtered = is_filtered
        self._at_end = at_end
        self._pid = os.getpid()
        self._hooked_exit = False
        self._gave_tokens = False
        self.library = Library()
        self._batch = self._new_batch()
        self._moments = Moments(self.settle, lambda: self._batch.changed_at)
        # Called after bcc's own, which are registered later.
        atexit.register(self._end)
        self.library.replace(
            attach=self._attach,
            close=self._close,
            detach=self._detach,
            before_read=self.settle,
        )
        if is_filtered:
            self.library.note_others(self._note_unfiltered)
        self._moments.begin()
        _installed = self

    @property
    def is_for_tool(self) -> bool:
        """Whether `batchprobe run` installed it."""
        return self._at_end is not None

    @property
    def batch(self) -> Batch:
        """Of this process: a forked child has one of its own, which knows none of its parent's."""
        if self._batch.pid != os.getpid():
            self._batch = self._new_batch()
            self._hooked_exit = False
        return self._batch

    def settle(self) -> None:
        """Arm and commit. An error is reported, because bcc's code swallows some."""
        try:
            self._batch.settle()
        except (BatchprobeError, OSError) as error:
            say(f"error: {error}")
        finally:
            # Ctrl-C, too, may come when some are armed.
            if self._batch.summary.probes and not self._hooked_exit:
                # Called before the hooks of the session and of the BPF object, which are there by
                # now: the one would give us no report, the other close each kprobe alone.
                atexit.register(self._finish)
                self._hooked_exit = True

    def remove(self) -> None:
        """Remove all kprobes."""
        self._finish()
        self.batch.close_native()

    def uninstall(self) -> None:
        """Remove all kprobes and give bcc its own functions back."""
        self._moments.end()
        self.remove()
        self.library.restore()
        if self._gave_tokens:
            self.library.ignore(Batch.owns)
        atexit.unregister(self._end)

    def _attach(self, *arguments: Any) -> int:
        batch = self.batch
        try:
            token = batch.attach(*arguments)
        except Exception as error:
            # bcc takes any exception here for a function that cannot be probed.
            say(f"error: {type(error).__name__}: {error}")
            raise
        if batch.owns(token):
            self._gave_tokens = True
            self._moments.wake()
        return token

    def _close(self, fd: int) -> int:
        if self._batch.owns(fd):
            batch = self.batch
            closed = batch.close(fd)
            if batch.has_detached:
                self._moments.wake()
            return closed
        status: int = self.library.close(fd)
        return status

    def _detach(self, event: bytes) -> int:
        # bcc calls this for each event when its kprobes are closed. The library would read all of
        # kprobe_events each time, for nothing.
        if event.startswith(_KPROBE_EVENTS) and not self.batch.is_native(event):
            return 0
        status: int = self.library.detach(event)
        return status

    def _new_batch(self) -> Batch:
        return Batch(self.library, self._make_session, say, is_filtered=self._is_filtered)

    def _note_unfiltered(self, kind: str) -> None:
        self.batch.summary.note_unfiltered(kind)

    def _finish(self) -> None:
        try:
            self._batch.finish()
        except (BatchprobeError, OSError) as error:
            say(f"error: {error}")

    def _end(self) -> None:
        self._finish()
        self._moments.end()
        if self._at_end is not None and os.getpid() == self._pid:
            self._at_end(self._batch.summary)


def install(*, abi: str = "auto", placement: str = "auto", barrier: str = "auto") -> None:
    """Route bcc's kprobes of this process through a session with these options. Under `batchprobe
    run`, whose options are others, that is done already.

    Raises UnsupportedError without bcc, ValueError for an unknown option, SessionError if the
    script has called it before.
    """
    # Refuses a bad option here, and not in the middle of an attach.
    ToolSession(abi=abi, placement=placement, barrier=barrier)
    if _installed is None or not _installed.is_for_tool:
        Installed(lambda: ToolSession(abi=abi, placement=placement, barrier=barrier))


def flush() -> None:
    """Arm all kprobes that bcc attached, and commit all that it detached, now.

    Raises SessionError if it is not installed.
    """
    if _installed is None:
        raise SessionError("batchprobe.bcc is not installed")
    _installed.settle()


def uninstall() -> None:
    """Remove all kprobes of bcc, in one commit, and give bcc its own functions back; under
    `batchprobe run`, when the process ends.
    """
    global _installed
    if _installed is not None and _installed.is_for_tool:
        _installed.remove()
        return
    installed, _installed = _installed, None
    if installed is not None:
        installed.uninstall()


def say(text: str) -> None:
    """Print a line on stderr, without arming kprobes as `print` would."""
    stream = sys.__stderr__
    if stream is not None:
        stream.write(f"batchprobe: {text}\n")
        stream.flush()
