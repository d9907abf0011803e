# SPDX-License-Identifier: Apache-2.0
"""Starts and dismisses the guardian of a session, and sweeps stale objects once."""

from __future__ import annotations

import atexit
from collections.abc import Callable

from batchprobe.commit.barrier import BarrierMode
from batchprobe.kernel.tracefs import Tracefs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.cleanup.guardian import Guardian

__all__ = ["CrashGuard"]


class CrashGuard:
    """Sees to it that no probe stays in the kernel, however this process ends.

    If it is killed, a guardian process removes the probes. At a normal exit of the interpreter
    `at_exit` is called. `mode` says whether the guardian may expedite grace periods. Calls must be
    serialized, except that any thread may call `arm` while the guard is armed.
    """

    def __init__(self, mode: BarrierMode, at_exit: Callable[[], object]) -> None:
        self._mode = mode
        self._at_exit = at_exit
        self._guardian: Guardian | None = None
        self._has_swept = False

    @property
    def is_armed(self) -> bool:
        """Whether a guardian was started and not dismissed."""
        return self._guardian is not None

    def arm(self) -> None:
        """Start the guardian and register `at_exit`, unless this was done before.

        To be called before anything is created that a kill would leave in the kernel. Raises
        OSError if no process can be started.
        """
        if self._guardian is None:
            # Not at the top: a link is armed before this, so its start does not wait for it.
            from batchprobe.cleanup.guardian import Guardian  # noqa: PLC0415

            self._guardian = Guardian(self._mode)
            atexit.register(self._at_exit)

    def after_attach(self) -> None:
        """To be called when probes are attached: the first time, remove stale objects.

        Not earlier, because stale objects do not hinder an attach. What cannot be removed stays for
        the next start and for `batchprobe cleanup`, which reports it.
        """
        if not self._has_swept:
            self._has_swept = True
            # Not at the top: probes are armed before this, so no start waits for it.
            from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415

            sweep(Tracefs.if_usable(), mode=self._mode)

    def prepare(self) -> None:
        """To be called when an attach is over: there is time now for the guardian's imports."""
        if self._guardian is not None:
            self._guardian.prepare()

    def disarm(self) -> None:
        """Dismiss the guardian and unregister `at_exit`: nothing is left for them to remove."""
        if self._guardian is not None:
            self._guardian.dismiss()
            self._guardian = None
            atexit.unregister(self._at_exit)
