# SPDX-License-Identifier: Apache-2.0
"""The model: states of probes and what the kernel still holds of them. It attaches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchprobe import ProbeState

__all__ = ["Model", "ModelAttachment", "ModelProbe", "ModelSession", "Outcome", "Site"]


@dataclass(frozen=True, order=True, slots=True)
class Site:
    """The entry or the return of a system call."""

    call: str
    is_return: bool

    def __str__(self) -> str:
        return f"syscall:{self.call}" + ("%return" if self.is_return else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The expected report of a commit, or the error it raises instead."""

    probes: int = 0
    clean: int = 0
    dirty: int = 0
    barriers: int = 0
    failed: int = 0
    raises: type[Exception] | None = None


class ModelProbe:
    """A probe: attached, queued, or detached."""

    def __init__(self, number: int, site: Site, attachment: ModelAttachment) -> None:
        self.number = number
        self.site = site
        self.attachment = attachment
        self.state = ProbeState.ATTACHED
        self.count = 0

    def __repr__(self) -> str:
        return f"<{self.number} {self.site}>"


class ModelAttachment:
    """The kernel objects of one attach call and one kind: a link, a trace event, perf kprobes."""

    def __init__(self, abi: str, placement: str, *, is_return: bool) -> None:
        self.abi = abi
        self.placement = placement
        self.is_return = is_return
        self.probes: list[ModelProbe] = []
        # Probes that the kernel still has: the queued ones too, and the detached ones of a link.
        self.holds: list[ModelProbe] = []
        # How often a smaller link has replaced it.
        self.generation = 0
        # The number of coming reclaims that fail, and the error that the next one raises without
        # doing anything.
        self.stubborn = 0
        self.raises: type[Exception] | None = None

    def __repr__(self) -> str:
        return f"<{self.abi} of {self.holds}>"

    @property
    def attached(self) -> list[ModelProbe]:
        return [probe for probe in self.probes if probe.state is ProbeState.ATTACHED]

    def reclaim(self, gone: Sequence[ModelProbe]) -> Outcome:
        """Reclaim `gone`, which are detached by now."""
        live = [probe for probe in self.holds if probe.state is not ProbeState.DETACHED]
        if self.raises is not None:
            error, self.raises = self.raises, None
            return Outcome(failed=1, raises=error)
        failed = int(self.stubborn > 0)
        self.stubborn -= failed
        if not live:
            self.holds = []
            return Outcome(dirty=len(gone), failed=failed)
        if self.abi == "perf":
            # Each probe has a kernel object of its own, and so is its last one.
            self.holds = live
            return Outcome(dirty=len(gone), failed=failed)
        if self.abi == "event":
            self.holds = live
        elif not self.is_return and len(live) * 2 <= len(self.holds):
            # A link cannot shrink, so a smaller one replaces it when half of it is dead. A link of
            # return probes stays: its successor would miss the returns of calls in progress.
            self.holds = live
            self.generation += 1
        return Outcome(clean=len(gone), failed=failed)


class ModelSession:
    """The probes of one session, and its queue."""

    def __init__(self, number: int, abi: str, placement: str) -> None:
        self.number = number
        self.abi = abi
        self.placement = placement
        self.probes: list[ModelProbe] = []
        self.attachments: list[ModelAttachment] = []
        self.queue: list[ModelProbe] = []
        # Attachments for the next commit to reclaim, each with the probes not reclaimed yet.
        self.unreclaimed: dict[ModelAttachment, list[ModelProbe]] = {}

    def __repr__(self) -> str:
        return f"<session {self.number}, {self.abi}>"

    @property
    def known(self) -> list[ModelProbe]:
        """The probes that `Session.probes` returns."""
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
        due, self.unreclaimed = self.unreclaimed, {}
        for probe in gone:
            probe.state = ProbeState.DETACHED
            due.setdefault(probe.attachment, []).append(probe)
        parts = {attachment: attachment.reclaim(probes) for attachment, probes in due.items()}
        for attachment, part in parts.items():
            if part.failed:
                self.unreclaimed[attachment] = due[attachment] if part.raises else []
        return Outcome(
            probes=len(gone),
            clean=sum(part.clean for part in parts.values()),
            dirty=sum(part.dirty for part in parts.values()),
            barriers=int(bool(gone)),
            failed=len(self.unreclaimed),
            raises=next((part.raises for part in parts.values() if part.raises), None),
        )


class Model:
    """All sessions so far: they probe the same system calls."""

    def __init__(self) -> None:
        self.sessions: list[ModelSession] = []
        self._probes = 0

    @property
    def probes(self) -> list[ModelProbe]:
        return [probe for session in self.sessions for probe in session.probes]

    @property
    def attachments(self) -> list[ModelAttachment]:
        """The attachments that the kernel still has probes of."""
        return [a for session in self.sessions for a in session.attachments if a.holds]

    def open(self, abi: str, placement: str) -> ModelSession:
        session = ModelSession(len(self.sessions) + 1, abi, placement)
        self.sessions.append(session)
        return session

    def attach(self, session: ModelSession, sites: Sequence[Site]) -> list[ModelProbe]:
        attachments = {
            kind: ModelAttachment(session.abi, session.placement, is_return=kind)
            for kind in sorted({site.is_return for site in sites})
        }
        probes = []
        for site in sites:
            self._probes += 1
            probe = ModelProbe(self._probes, site, attachments[site.is_return])
            probe.attachment.probes.append(probe)
            probe.attachment.holds.append(probe)
            probes.append(probe)
        session.probes += probes
        session.attachments += attachments.values()
        return probes

    def call(self, rounds: int) -> None:
        """Count `rounds` of each system call."""
        for probe in self.probes:
            if probe.state is ProbeState.ATTACHED:
                probe.count += rounds
