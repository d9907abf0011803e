# SPDX-License-Identifier: Apache-2.0
"""What the guardian does: removes what it was handed, answers its parent, sweeps stale objects.

Everything is imported at once, so that nothing is needed of the package's files later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress

from batchprobe.cleanup.removal import remove
from batchprobe.cleanup.sweep import sweep
from batchprobe.commit.barrier import Barrier, BarrierMode
from batchprobe.commit.queue import Remains
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys.process import Owner

__all__ = ["GuardianWork"]

# A trace event is busy until the kernel has closed the dead parent's perf events.
_PATIENCE_SECONDS = 60.0
_PROGRESS_SECONDS = 0.1


class GuardianWork:
    """The work of one guardian. `mode` says whether it may expedite grace periods."""

    def __init__(self, mode: str) -> None:
        self._mode = BarrierMode(mode)
        self._answered = 0.0
        self._answers = -1

    def sweep(self) -> None:
        """Remove stale objects."""
        sweep(Tracefs.if_usable(), patience=_PATIENCE_SECONDS, mode=self._mode)

    def remove(self, fds: list[int], others: Sequence[int]) -> bool:
        """Close `fds`, then run the commands that the first of `others` has, and answer through the
        second; the rest is kept open meanwhile. Returns whether nothing was refused.
        """
        remains = Remains()
        remains.fds = fds
        if not others:
            # The parent could not hand over the rest, and goes on with that itself.
            remove(remains)
            return False
        commands, self._answers, *_ = others
        size = os.fstat(commands).st_size
        remains.commands = os.pread(commands, size, 0).decode().splitlines()
        with Barrier(self._mode, Owner.this_process()).expedited_grace_periods():
            failures = remove(remains, self._answer_progress)
        for command, failure in zip(remains.commands, failures, strict=True):
            self._answer(f"refused {failure.errno} {command}\n")
        self._answer("done\n")
        for fd in others:
            os.close(fd)
        return not failures

    def _answer_progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._answered > _PROGRESS_SECONDS:
            self._answered = now
            self._answer(f"progress {done} {total}\n")

    def _answer(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the parent does not wait
            os.write(self._answers, line.encode())
