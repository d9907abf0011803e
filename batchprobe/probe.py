# SPDX-License-Identifier: Apache-2.0
"""A probe as the user holds it, and the group it is detached with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import groupby

from batchprobe.errors import NotAttachedError
from batchprobe.functions.targets import Target
from batchprobe.programs.probe_maps import Hits, ProbeMaps

__all__ = [
    "DetachGroup",
    "Event",
    "Final",
    "Holder",
    "Probe",
    "ProbeState",
    "Snapshot",
    "values_of",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Snapshot(Protocol):
        """Values by slot."""

        def __getitem__(self, slot: int, /) -> Any:
            """The value of one slot."""
            ...

    class Holder(Protocol):
        """The kernel object that carries a probe, as far as the probe needs it."""

        maps: ProbeMaps
        detach_group: DetachGroup | None
        """The group of all its probes, if they are detached together."""

        def snapshot(self) -> Snapshot:
            """The values now."""
            ...

        def final(self, slots: Sequence[int]) -> Final:
            """The final results of these slots."""
            ...

        def events(self, *, last: bool = False) -> Iterator[Event]:
            """Events since the last call, or some of them; all, if these are the last ones."""
            ...

else:
    Snapshot = Holder = object


class Final:
    """What one kernel object's probes ended with."""

    __slots__ = ("hits", "values")

    def __init__(self, hits: Hits, values: Snapshot) -> None:
        self.hits = hits
        self.values = values


class ProbeState(Enum):
    """Where a probe is in its life."""

    ATTACHED = "attached"
    """It counts."""
    QUEUED = "queued"
    """It counts no more and waits for the commit."""
    DETACHED = "detached"
    """Its result is final."""


class DetachGroup:
    """Probes that are detached together: their state is stored once, however many they are."""

    __slots__ = ("_probes", "_whole", "finals", "size", "state")

    def __init__(self, probes: Sequence[Probe], whole: Sequence[Holder] = ()) -> None:
        """`whole` are all holders of these probes, if every probe of theirs is in the group."""
        self._probes = probes
        self._whole = whole
        self.size = len(probes)
        self.state = ProbeState.QUEUED
        self.finals: dict[Holder, Final] = {}

    def finalize(self) -> Sequence[Probe]:
        """After the barrier: keep the final results, drop our references, return the probes.

        Returns nothing the second time.
        """
        if self.state is ProbeState.DETACHED:
            return ()
        slots: dict[Holder, Sequence[int]] = {
            holder: range(1, holder.maps.layout.slots + 1) for holder in self._whole
        }
        if not self._whole:
            listed: dict[Holder, list[int]] = {}
            for probe in self._probes:
                listed.setdefault(probe.holder, []).append(probe.slot)
            slots = dict(listed)
        self.finals = {holder: holder.final(those) for holder, those in slots.items()}
        self.state = ProbeState.DETACHED
        # A reference to one probe must not keep all of them alive.
        probes, self._probes, self._whole = self._probes, (), ()
        return probes


class Probe:
    """One probe on a function: made by `Session.attach`, ended by `Session.detach` and a commit."""

    __slots__ = ("_detach_group", "abi", "attachment", "offset", "placement", "slot", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        # None also if it is detached with all probes of its attachment, which has the group then.
        self._detach_group: DetachGroup | None = None
        self.attachment: Any = None
        """The kernel object that carries it (a `batchprobe.attach.base.Attachment`)."""
        self.slot = 0
        """Its index in the maps of `attachment`."""
        self.abi = ""
        """The probe ABI that carries it."""
        self.offset = target.offset
        """Bytes from the function's symbol to the probe."""
        self.placement = "offset" if target.offset else "entry"
        """`entry`, `after` (after the entry patch site), or `offset` (asked for)."""

    @property
    def detach_group(self) -> DetachGroup | None:
        """The group it is detached with; None while it is attached."""
        if self._detach_group is None and self.attachment is not None:
            group: DetachGroup | None = self.attachment.detach_group
            return group
        return self._detach_group

    def join_group(self, group: DetachGroup) -> None:
        """Mark it detached, as part of this group."""
        self._detach_group = group

    @property
    def state(self) -> ProbeState:
        """Whether it counts, waits for its commit, or is gone."""
        group = self.detach_group
        return ProbeState.ATTACHED if group is None else group.state

    @property
    def label(self) -> str:
        """Its name in tables: unique within one attach call."""
        return self.target.label

    @property
    def address(self) -> int | None:
        """Where the probe stands; None if its module was not loaded at the attach."""
        function = self.target.function
        return None if function is None else function.address + self.offset

    @property
    def count(self) -> int:
        """Hits so far; the final number once it is detached and committed.

        Raises SessionError in a forked child, where the number would not be final.
        """
        count: int = self._result(
            lambda final: final.hits, lambda holder: holder.maps.hits_of(self.slot)
        )
        return count

    @property
    def value(self) -> Any:
        """What the session's action made of its hits; for Count that is `count`.

        Raises SessionError in a forked child.
        """
        return self._result(lambda final: final.values, lambda holder: holder.snapshot()[self.slot])

    def _result(self, of_final: Callable[[Final], Snapshot], now: Callable[[Holder], Any]) -> Any:
        final = self._final()
        if final is None:
            holder = self.holder
            holder.maps.require_ours()
            with holder.maps.lock:
                # Another thread's commit may have finalized it and closed the maps just now.
                final = self._final()
                if final is None:
                    return now(holder)
        return of_final(final)[self.slot]

    def _final(self) -> Final | None:
        group = self.detach_group
        if group is None or group.state is not ProbeState.DETACHED:
            return None
        return group.finals[self.holder]

    @property
    def holder(self) -> Holder:
        """The kernel object that carries it. Raises NotAttachedError if none does."""
        if self.attachment is None:
            raise NotAttachedError(f"{self.label} is not attached")
        holder: Holder = self.attachment
        return holder

    def __repr__(self) -> str:
        return f"<Probe {self.label} {self.state.value} {self.abi} {self.placement}>"


def values_of(probes: Iterable[Probe]) -> dict[Probe, Any]:
    """The value of each probe; of probes that were detached together much faster than one by one.

    Raises NotAttachedError, and what their readers raise.
    """
    values = {}
    for holder, those in groupby(probes, lambda probe: probe.attachment):
        group = None if holder is None else holder.detach_group
        if group is None or group.state is not ProbeState.DETACHED:
            for probe in those:
                values[probe] = probe.value
            continue
        snapshot = group.finals[holder].values
        for probe in those:
            values[probe] = snapshot[probe.slot]
    return values


class Event:
    """One hit of a probe, with what the action recorded of it."""

    __slots__ = ("fields", "probe")

    def __init__(self, probe: Probe, fields: Mapping[str, object]) -> None:
        self.probe = probe
        self.fields = fields

    def __repr__(self) -> str:
        return f"<Event {self.probe.label} {self.fields}>"
