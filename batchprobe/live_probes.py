# SPDX-License-Identifier: Apache-2.0
"""The probes of a session that are not gone yet: their results, and the top half of a detach."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import RLock

from batchprobe.attach.base import Attachment, sum_or_unknown
from batchprobe.errors import NotAttachedError
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.probe import DetachGroup, Event, Holder, Probe, ProbeState
from batchprobe.programs.probe_maps import ProbeMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LiveProbes"]

# A round with fewer events than this has emptied the buffers; this many rounds empty full ones.
_MANY = 1024
_MOST_ROUNDS = 64


class LiveProbes:
    """Probes and kernel objects in order of attach. Any thread may call any method.

    `close_gates` and `close_all_gates` take no lock, because a signal handler that calls them may
    have interrupted its holder. They run under the queue's lock.
    """

    def __init__(self, symbols: KernelSymbols) -> None:
        self._symbols = symbols
        self.is_sealed = False
        self._lock = RLock()
        self._probes: dict[Probe, None] = {}
        self._attachments: dict[Attachment, None] = {}
        self._detaching: set[DetachGroup] = set()
        # Of attachments that are gone.
        self._missed: int | None = 0
        self._missed_in: list[Probe] = []
        self._lost: int | None = 0
        self._events: deque[Iterator[Event]] = deque()
        self._reader_error: Exception | None = None

    def __iter__(self) -> Iterator[Probe]:
        # The copy is one step, so it needs no lock.
        return iter(list(self._probes))

    def __len__(self) -> int:
        return len(self._probes)

    def add(self, probes: Sequence[Probe], attachments: Sequence[Attachment]) -> bool:
        """Add the probes of one attach; returns False after `seal`."""
        with self._lock:
            if not self.is_sealed:
                self._attachments.update(dict.fromkeys(attachments))
                self._probes.update(dict.fromkeys(probes))
            return not self.is_sealed

    def seal(self) -> None:
        """From now on `add` takes nothing."""
        with self._lock:
            self.is_sealed = True

    # -- results -----------------------------------------------------------------------------

    def hits(self) -> dict[Probe, int]:
        """Hits so far."""
        return self._read(lambda attachment: attachment.maps.hits())

    def values(self) -> dict[Probe, Any]:
        """The action's values so far."""
        return self._read(lambda attachment: attachment.snapshot())

    def _read(self, read: Callable[[Attachment], Any]) -> dict[Probe, Any]:
        self.claim_hits()
        # Under the lock no probe is finalized, and so no maps are closed.
        with self._lock:
            found: dict[Attachment, Any] = {}
            result = {}
            for probe in self._probes:
                attachment = probe.attachment
                if attachment not in found:
                    found[attachment] = read(attachment)
                result[probe] = found[attachment][probe.slot]
            return result

    def events(self) -> Iterator[Event]:
        """Events since the last call, those of finalized probes first.

        Events that the caller leaves are returned by the next call. Raises what a reader raises.
        """
        # What an earlier call left. Whoever takes a few at a time would otherwise pile up the rest.
        while (event := self._next_event()) is not None:
            yield event
        # A reader hands out some at a time. Under a steady load there would be no end.
        passed = _MANY
        for _ in range(_MOST_ROUNDS):
            if passed < _MANY:
                return
            with self._lock:
                for attachment in self._attachments:
                    self._events.append(attachment.events())
                error, self._reader_error = self._reader_error, None
            if error is not None:
                raise error
            passed = 0
            while (event := self._next_event()) is not None:
                passed += 1
                yield event

    def _next_event(self) -> Event | None:
        with self._lock:
            while self._events:
                if (event := next(self._events[0], None)) is not None:
                    return event
                self._events.popleft()
        return None

    def missed(self) -> int | None:
        """Hits that ran no program, of all probes so far; None if unknown."""
        with self._lock:
            return sum_or_unknown(self._missed, *(one.missed() for one in self._attachments))

    def missed_in(self) -> list[Probe]:
        """Detached probes that missed hits, most of all first within one kernel object."""
        with self._lock:
            return list(self._missed_in)

    def lost(self) -> int | None:
        """Hits that are not in the action's values, of all probes so far; None if unknown."""
        with self._lock:
            return sum_or_unknown(self._lost, *(one.lost() for one in self._attachments))

    def claim_hits(self) -> None:
        """Give hits in modules that were loaded after the attach to their probes."""
        with self._lock:
            if any(attachment.maps.has_unclaimed for attachment in self._attachments):
                from batchprobe.attach.late_modules import claim_hits  # noqa: PLC0415 (few need it)

                claim_hits(self._attachments, self._probes, self._symbols)

    # -- detach ------------------------------------------------------------------------------

    def close_gates(self, probes: Sequence[Probe]) -> None:
        """The top half of a detach.

        Raises NotAttachedError, and changes nothing, if one of them is not attached here.
        """
        self._require_attached(probes)
        slots: dict[ProbeMaps, list[int]] = {}
        for probe in probes:
            slots.setdefault(probe.holder.maps, []).append(probe.slot)
        for maps, those in slots.items():
            maps.close_gates(those)
        self._mark_detached(probes)

    def close_all_gates(self) -> list[Probe]:
        """The top half of a detach of all attached probes; returns them."""
        # A fast path for detaching everything. Reading `_attachments` again and comparing numbers
        # shows that no attach or commit changed them meanwhile.
        attachments, probes = list(self._attachments), list(self._probes)
        whole = not self._detaching and attachments == list(self._attachments)
        if whole and sum(len(one.live) for one in attachments) == len(probes):
            attachments = [one for one in attachments if one.live]
            group = self._group(probes, attachments)
            for attachment in attachments:
                attachment.maps.close_all_gates()
                attachment.detach_group = group
            return probes
        probes = [probe for probe in self if probe.state is ProbeState.ATTACHED]
        for maps in {probe.holder.maps for probe in probes}:
            maps.close_all_gates()
        self._mark_detached(probes)
        return probes

    def finalize(self, probes: Sequence[Probe]) -> None:
        """After the barrier, before the reclaim: keep the final results and forget the probes."""
        with self._lock:
            for group in _groups(probes):
                gone = group.finalize()
                for attachment in group.finals:
                    self._read_last_events(attachment)
                self._detaching.discard(group)
                if len(gone) == len(self._probes):
                    self._probes.clear()
                else:
                    for probe in gone:
                        self._probes.pop(probe, None)

    def _read_last_events(self, attachment: Holder) -> None:
        try:
            self._events.append(attachment.events(last=True))
        except Exception as error:
            # Raised by the next `events`: it must not keep probes attached.
            self._reader_error = error

    def forget_empty(self) -> None:
        """After a reclaim: drop kernel objects without live probes."""
        with self._lock:
            for attachment in [one for one in self._attachments if not one.live]:
                del self._attachments[attachment]
                self._missed = sum_or_unknown(self._missed, attachment.missed())
                self._missed_in += attachment.missed_in()
                self._lost = sum_or_unknown(self._lost, attachment.lost())

    def _require_attached(self, probes: Sequence[Probe]) -> None:
        if len(set(probes)) != len(probes):
            raise NotAttachedError("a probe is detached twice in one call")
        for probe in probes:
            if probe.state is not ProbeState.ATTACHED:
                raise NotAttachedError(f"{probe.label} is not attached: it is {probe.state.value}")
            if probe not in self._probes:
                raise NotAttachedError(f"{probe.label} is attached by another session")

    def _mark_detached(self, probes: Sequence[Probe]) -> None:
        group = self._group(probes)
        for probe in probes:
            probe.join_group(group)

    def _group(self, probes: Sequence[Probe], whole: Sequence[Attachment] = ()) -> DetachGroup:
        group = DetachGroup(probes, whole)
        if probes:
            self._detaching.add(group)
        return group


def _groups(probes: Sequence[Probe]) -> Iterator[DetachGroup]:
    """The groups of these probes, which are neighbours in the queue."""
    at = 0
    while at < len(probes) and (group := probes[at].detach_group) is not None:
        yield group
        at += group.size
