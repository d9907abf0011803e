# SPDX-License-Identifier: Apache-2.0
"""Starts and dismisses the guardian of a session, hands it removals that the caller does not wait
for, and sweeps stale objects once.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable

from batchprobe.commit.barrier import BarrierMode
from batchprobe.commit.queue import Remains, RemovalFailure
from batchprobe.kernel.tracefs import Tracefs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.cleanup.guardian import Guardian
    from batchprobe.commit.queue import Wait

__all__ = ["CrashGuard"]


class CrashGuard:
    """Sees to it that no probe stays in the kernel, however this process ends.

    If it is killed, a guardian process removes the probes. At a normal exit of the interpreter
    `at_exit` is called. `mode` says whether the guardian may expedite grace periods; `reclaimed` is
    called with the number of probes removed, and of all. Calls must be serialized, except that any
    thread may call `arm` while the guard is armed, and `remove` in a commit.
    """

    def __init__(
        self,
        mode: BarrierMode,
        at_exit: Callable[[], object],
        reclaimed: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._mode = mode
        self._at_exit = at_exit
        self._reclaimed = reclaimed
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
        if self._has_swept:
            return
        # Not at the top: probes are armed before this, so no start waits for it.
        from batchprobe.cleanup.ongoing import is_ongoing  # noqa: PLC0415
        from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415

        # A removal may hold the kernel's lock on trace events for seconds, and our gates are
        # still closed.
        if not is_ongoing():
            self._has_swept = True
            sweep(Tracefs.if_usable(), mode=self._mode)

    def prepare(self) -> None:
        """To be called when an attach is over: there is time now for the guardian's imports."""
        if self._guardian is not None:
            self._guardian.prepare()

    def remove(self, remains: Remains, wait: Wait) -> tuple[list[RemovalFailure], bool]:
        """Remove what is left of kernel objects; returns what was refused, which stays in
        `remains`, and whether the guardian goes on with it.

        Unless `wait` is True, the guardian does it if there is one.
        """
        # Not at the top: a reclaim leaves nothing unless it is slow or was refused something.
        from batchprobe.cleanup.removal import remove  # noqa: PLC0415

        if wait is not True and self._guardian is not None:
            from batchprobe.cleanup.hand_over import hand_over  # noqa: PLC0415

            outcome = hand_over(self._guardian, remains, wait, self._reclaimed)
            if outcome is not None:
                return outcome
        return remove(remains, self._reclaimed), False

    def disarm(self) -> None:
        """Dismiss the guardian and unregister `at_exit`: nothing is left for them to remove."""
        if self._guardian is not None:
            self._guardian.dismiss()
            self._guardian = None
            atexit.unregister(self._at_exit)
