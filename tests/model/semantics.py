"""The model: clean and dirty lists, and what stays in the kernel meanwhile. It does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchprobe import ProbeState

__all__ = ["Model", "ModelCarrier", "ModelProbe", "ModelSession", "Outcome", "Place"]


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """A system call, when it is entered or when it returns."""

    call: str
    is_return: bool

    def __str__(self) -> str:
        return f"syscall:{self.call}" + ("%return" if self.is_return else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the report of a commit must say; if it raises, nobody gets to read it."""

    probes: int = 0
    clean: int = 0
    dirty: int = 0
    barriers: int = 0
    left: int = 0
    raises: type[Exception] | None = None


class ModelProbe:
    """A probe: on no list, on the queue, or gone."""

    def __init__(self, number: int, place: Place, carrier: ModelCarrier) -> None:
        self.number = number
        self.place = place
        self.carrier = carrier
        self.state = ProbeState.ATTACHED
        self.count = 0

    def __repr__(self) -> str:
        return f"<{self.number} {self.place}>"


class ModelCarrier:
    """What one attach call gave the kernel, of one kind: a link, a trace event, perf kprobes."""

    def __init__(self, abi: str, placement: str, *, is_return: bool) -> None:
        self.abi = abi
        self.placement = placement
        self.is_return = is_return
        self.probes: list[ModelProbe] = []
        # What the kernel still has of it: queued probes, and a link's dead ones too.
        self.holds: list[ModelProbe] = []
        # Which kernel object it is by now: a link is replaced by a smaller one.
        self.generation = 0
        # So many reclaims to come will leave something; the next one will raise this, and do
        # nothing.
        self.stubborn = 0
        self.raises: type[Exception] | None = None

    def __repr__(self) -> str:
        return f"<{self.abi} of {self.holds}>"

    @property
    def attached(self) -> list[ModelProbe]:
        return [probe for probe in self.probes if probe.state is ProbeState.ATTACHED]

    def reclaim(self, gone: Sequence[ModelProbe]) -> Outcome:
        """These are detached now."""
        live = [probe for probe in self.holds if probe.state is not ProbeState.DETACHED]
        if self.raises is not None:
            error, self.raises = self.raises, None
            return Outcome(left=1, raises=error)
        left = int(self.stubborn > 0)
        self.stubborn -= left
        if not live:
            self.holds = []
            return Outcome(dirty=len(gone), left=left)
        if self.abi == "perf":
            # Each has a kernel object of its own, so each is the last of it.
            self.holds = live
            return Outcome(dirty=len(gone), left=left)
        if self.abi == "event":
            self.holds = live
        elif not self.is_return and len(live) * 2 <= len(self.holds):
            # A link cannot shrink: a smaller one pays when half of it is dead. One of return probes
            # stays whole, since its successor would not see running calls return.
            self.holds = live
            self.generation += 1
        return Outcome(clean=len(gone), left=left)


class ModelSession:
    """The probes of one session, and its queue."""

    def __init__(self, number: int, abi: str, placement: str) -> None:
        self.number = number
        self.abi = abi
        self.placement = placement
        self.probes: list[ModelProbe] = []
        self.carriers: list[ModelCarrier] = []
        self.queue: list[ModelProbe] = []
        # What a reclaim left is tried again by the next commit, with what was not done at all.
        self.debts: dict[ModelCarrier, list[ModelProbe]] = {}

    def __repr__(self) -> str:
        return f"<session {self.number}, {self.abi}>"

    @property
    def known(self) -> list[ModelProbe]:
        """What it tells of: the rest is forgotten."""
        return [probe for probe in self.probes if probe.state is not ProbeState.DETACHED]

    @property
    def attached(self) -> list[ModelProbe]:
        return [probe for probe in self.probes if probe.state is ProbeState.ATTACHED]

    def detach(self, probes: Sequence[ModelProbe]) -> None:
        for probe in probes:
            probe.state = ProbeState.QUEUED
        self.queue += probes

    def commit(self) -> Outcome:
        gone, self.queue = self.queue, []
        debts, self.debts = self.debts, {}
        for probe in gone:
            probe.state = ProbeState.DETACHED
            debts.setdefault(probe.carrier, []).append(probe)
        parts = {carrier: carrier.reclaim(part) for carrier, part in debts.items()}
        for carrier, part in parts.items():
            if part.left:
                self.debts[carrier] = debts[carrier] if part.raises else []
        return Outcome(
            probes=len(gone),
            clean=sum(part.clean for part in parts.values()),
            dirty=sum(part.dirty for part in parts.values()),
            barriers=int(bool(gone)),
            left=len(self.debts),
            raises=next((part.raises for part in parts.values() if part.raises), None),
        )


class Model:
    """All sessions there are or were: they share the functions that are called."""

    def __init__(self) -> None:
        self.sessions: list[ModelSession] = []
        self._probes = 0

    @property
    def probes(self) -> list[ModelProbe]:
        return [probe for session in self.sessions for probe in session.probes]

    @property
    def carriers(self) -> list[ModelCarrier]:
        """Those of which the kernel has anything."""
        return [c for session in self.sessions for c in session.carriers if c.holds]

    def open(self, abi: str, placement: str) -> ModelSession:
        session = ModelSession(len(self.sessions) + 1, abi, placement)
        self.sessions.append(session)
        return session

    def attach(self, session: ModelSession, places: Sequence[Place]) -> list[ModelProbe]:
        carriers = {
            kind: ModelCarrier(session.abi, session.placement, is_return=kind)
            for kind in sorted({place.is_return for place in places})
        }
        probes = []
        for place in places:
            self._probes += 1
            probe = ModelProbe(self._probes, place, carriers[place.is_return])
            probe.carrier.probes.append(probe)
            probe.carrier.holds.append(probe)
            probes.append(probe)
        session.probes += probes
        session.carriers += carriers.values()
        return probes

    def call(self, rounds: int) -> None:
        """Each call is made so often."""
        for probe in self.probes:
            if probe.state is ProbeState.ATTACHED:
                probe.count += rounds
