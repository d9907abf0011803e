"""Decides when a session needs a guardian, and sweeps once after its first attach."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchprobe.commit.barrier import BarrierMode
from batchprobe.kernel.tracefs import Tracefs

if TYPE_CHECKING:
    from batchprobe.cleanup.guardian import Guardian

__all__ = ["CrashGuard"]


class CrashGuard:
    """Protects against any end of this process while it has probes.

    A guardian removes what a kill leaves in the kernel; `at_exit` is called at a regular exit of
    the interpreter. `mode` says whether the guardian may expedite grace periods. Not thread-safe:
    `arm`, `attached`, `prepare` and `disarm` need a lock around them.
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
            # With a link, no start waits for this import: its probes are armed by now.
            from batchprobe.cleanup.guardian import Guardian  # noqa: PLC0415

            self._guardian = Guardian(self._mode)
            atexit.register(self._at_exit)

    def attached(self) -> None:
        """To be called when probes are attached: the first time, remove stale objects.

        Not earlier, because they are in no attach's way. Raises KernelError if kprobe_events cannot
        be read, OSError if rcu_expedited cannot be restored.
        """
        if not self._has_swept:
            self._has_swept = True
            # Probes are armed by now, so no start waits for this import.
            from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415

            sweep(Tracefs.find(), mode=self._mode)

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
