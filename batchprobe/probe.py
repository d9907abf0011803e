"""A probe, as the user holds it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from batchprobe.errors import NotAttachedError

if TYPE_CHECKING:
    from batchprobe.attach.base import Carrier
    from batchprobe.functions.targets import Target
    from batchprobe.programs.probe_maps import Bank, Counts

__all__ = ["Departure", "Probe", "ProbeState"]


class ProbeState(Enum):
    """ATTACHED counts; QUEUED does not any more, and waits for the commit; DETACHED is gone."""

    ATTACHED = "attached"
    QUEUED = "queued"
    DETACHED = "detached"


class Departure:
    """Probes that leave together: what is true of all of them is noted once, however many."""

    __slots__ = ("_banks", "_probes", "finals", "size", "state")

    def __init__(self, probes: Sequence[Probe], banks: Sequence[Bank] = ()) -> None:
        """`banks` are theirs if all leave that are in them."""
        self._probes = probes
        self._banks = banks
        self.size = len(probes)
        self.state = ProbeState.QUEUED
        # Of each bank, the final counts by slot.
        self.finals: dict[Bank, Counts] = {}

    def settle(self) -> Sequence[Probe]:
        """The barrier has passed: keep the final counts, and let go of the probes; which it were.

        The second time there is nothing to do.
        """
        if self.state is ProbeState.DETACHED:
            return ()
        if self._banks:
            self.finals = {bank: bank.counts() for bank in self._banks}
        else:
            slots: dict[Bank, list[int]] = {}
            for probe in self._probes:
                slots.setdefault(probe.bank, []).append(probe.slot)
            self.finals = {bank: bank.finals(those) for bank, those in slots.items()}
        self.state = ProbeState.DETACHED
        # Whoever keeps one of them must not keep them all.
        gone, self._probes, self._banks = self._probes, (), ()
        return gone


class Probe:
    """One function's probe: made by `Session.attach`, ended by `Session.detach` and a commit."""

    __slots__ = ("_departure", "abi", "carrier", "offset", "placement", "slot", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        # Its own; it may also leave with all that its carrier carries.
        self._departure: Departure | None = None
        # Its place: the carrier that takes it says so.
        self.carrier: Carrier | None = None
        self.slot = 0
        # Which probe ABI carries it, and where it really stands: the ABI that attaches it says so.
        self.abi = ""
        self.offset = target.offset
        # `entry`, `after` (behind the entry patch site), or `offset` (asked for).
        self.placement = "offset" if target.offset else "entry"

    @property
    def departure(self) -> Departure | None:
        """With whom it leaves or has left; None while it is attached."""
        if self._departure is None and self.carrier is not None:
            return self.carrier.departure
        return self._departure

    def depart(self, departure: Departure) -> None:
        """It leaves, and does not count any more."""
        self._departure = departure

    @property
    def state(self) -> ProbeState:
        """Whether it counts, waits for its commit, or is gone."""
        departure = self.departure
        return ProbeState.ATTACHED if departure is None else departure.state

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
    def count(self) -> int:
        """Hits so far; the final count once it is detached and committed.

        Raises SessionError in a forked child, where it is not final.
        """
        bank = self.bank
        final = self._final(bank)
        if final is None:
            bank.require_ours()
            with bank.lock:
                # A commit of another thread may have settled it, and closed the bank, just now.
                final = self._final(bank)
                return bank.count(self.slot) if final is None else final
        return final

    def _final(self, bank: Bank) -> int | None:
        departure = self.departure
        if departure is None or departure.state is not ProbeState.DETACHED:
            return None
        return departure.finals[bank][self.slot]

    @property
    def bank(self) -> Bank:
        """The maps it counts in. Raises NotAttachedError where no carrier took it."""
        if self.carrier is None:
            raise NotAttachedError(f"{self.label} is not attached")
        return self.carrier.bank

    def __repr__(self) -> str:
        return f"<Probe {self.label} {self.state.value} {self.abi} {self.placement}>"
