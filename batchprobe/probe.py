"""A probe, as the user holds it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from batchprobe.errors import NotAttachedError

if TYPE_CHECKING:
    from batchprobe.abi.base import Carrier
    from batchprobe.bank import Bank
    from batchprobe.kernel.targets import Target

__all__ = ["Probe", "ProbeState"]


class ProbeState(enum.Enum):
    """ATTACHED counts; QUEUED does not any more, and waits for the commit; DETACHED is gone."""

    ATTACHED = "attached"
    QUEUED = "queued"
    DETACHED = "detached"


class Probe:
    """One function's probe: made by `Session.attach`, ended by `Session.detach` and a commit."""

    __slots__ = ("_final", "abi", "carrier", "offset", "slot", "state", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.state = ProbeState.ATTACHED
        # Its place: the carrier that takes it says so.
        self.carrier: Carrier | None = None
        self.slot = 0
        # Which probe ABI carries it, and where it really stands: the ABI that attaches it says so.
        self.abi = ""
        self.offset = target.offset
        self._final: int | None = None

    @property
    def label(self) -> str:
        """The name it has in tables: unique within one attach call."""
        return self.target.label

    @property
    def address(self) -> int | None:
        """Where the probe stands, None while its module is not loaded."""
        function = self.target.function
        return None if function is None else function.address + self.offset

    @property
    def placement(self) -> str:
        """`entry`, `after` (behind the entry patch site), or `offset` (asked for)."""
        if self.target.offset:
            return "offset"
        return "after" if self.offset else "entry"

    @property
    def count(self) -> int:
        """Hits so far; the final count once it is detached and committed.

        Raises SessionError in a forked child, where it is not final.
        """
        if self._final is None:
            self.bank.require_ours()
            with self.bank.lock:
                # A commit of another thread may have settled it, and closed the bank, just now.
                if self._final is None:
                    return self.bank.count(self.slot)
        return self._final

    @property
    def bank(self) -> Bank:
        """The maps it counts in. Raises NotAttachedError where no carrier took it."""
        if self.carrier is None:
            raise NotAttachedError(f"{self.label} is not attached")
        return self.carrier.bank

    def settle(self, count: int) -> None:
        """The count is final: the barrier has passed."""
        self._final = count

    def __repr__(self) -> str:
        return f"<Probe {self.label} {self.state.value} {self.abi} {self.placement}>"
