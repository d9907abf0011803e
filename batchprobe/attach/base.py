# SPDX-License-Identifier: Apache-2.0
"""What an attachment is (a kernel object with its probes), and what it is given to attach with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum

from batchprobe.actions.base import Action, RawEvent
from batchprobe.arch import Arch
from batchprobe.commit.queue import Reclaimed, Remains
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.filters.base import Filter, ProbeKind
from batchprobe.functions.table import Function, FunctionTable
from batchprobe.kernel.kcore import Kcore
from batchprobe.probe import DetachGroup, Event, Final, Probe, Snapshot
from batchprobe.programs.maps import MapSpec, SlotLayout
from batchprobe.programs.probe_maps import NO_SLOT, ProbeMaps
from batchprobe.programs.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

__all__ = [
    "FEW",
    "AttachContext",
    "Attachment",
    "Placement",
    "Refusal",
    "if_allowed",
    "sum_or_unknown",
]

# A longer function is probed at its entry, so that its code need not be read.
_MAX_FUNCTION_SIZE = 1 << 16
FEW = 8
"""Up to this many grace periods of full length are soon over."""


class Placement(Enum):
    """Where an entry probe stands."""

    AUTO = "auto"
    """What the architecture prefers."""
    ENTRY = "entry"
    """At the function's entry."""
    AFTER = "after"
    """After the entry patch site."""


class AttachContext:
    """What an ABI needs to attach probes.

    `group` is the event group of this process. `expedited_grace_periods` makes a block in which
    grace periods are expedited, where that is allowed; `expedites` tells whether it is, so that a
    removal needs no progress. `guard` is to be called before creating anything that outlives this
    process. `progress` is called with a number of probes just attached, and raises to cancel;
    `reclaimed` during a slow reclaim with the number of probes removed, and of all; `explain` with
    a sentence for each decision that a user may ask about.

    `taken` are addresses that entries with an offset ask for. No other probe may move there: an
    event takes an address once, and an instruction pointer must name one probe. `distrusted` are,
    for the ABI in use, placements (or "return") that count wrongly here, and how: see
    `calibration`.
    """

    def __init__(
        self,
        *,
        arch: Arch,
        kcore: Kcore,
        table: FunctionTable,
        programs: Mapping[str, Program],
        action: Action,
        filters: Sequence[Filter],
        placement: Placement,
        group: str,
        expedited_grace_periods: Callable[[], AbstractContextManager[None]],
        guard: Callable[[], None],
        progress: Callable[[int], None],
        expedites: Callable[[], bool] = lambda: True,
        reclaimed: Callable[[int, int], None] = lambda _done, _total: None,
        explain: Callable[[str], None] = lambda _sentence: None,
        taken: Collection[int] = (),
    ) -> None:
        self.arch = arch
        self.kcore = kcore
        self.table = table
        self.programs = programs
        self.action = action
        self.filters = filters
        self.placement = placement
        self.group = group
        self.expedited_grace_periods = expedited_grace_periods
        self.expedites = expedites
        self.guard = guard
        self.progress = progress
        self.reclaimed = reclaimed
        self.explain = explain
        self.taken = taken
        self.stack_moves = 0
        """Of calls by the ABI in use, as `programs.program.STACK_MOVES`; 0 if unknown."""
        self.session_is_return = 0
        """`programs.program.SESSION_IS_RETURN`, if the ABI in use has sessions; else 0."""
        self.distrusted: Mapping[str, str] = {}

    def with_changes(self, **changes: Any) -> AttachContext:
        """A copy in which these attributes have other values."""
        changed = AttachContext.__new__(AttachContext)
        changed.__dict__.update(self.__dict__, **changes)
        return changed

    def code(self, probe: Probe) -> bytes | None:
        """The machine code of the probe's function; None if it cannot be read."""
        function = probe.target.function
        if function is None or not 0 < function.size <= _MAX_FUNCTION_SIZE:
            return None
        return self.kcore.read(function.address, function.size)

    def distrust(self, probe: Probe) -> str:
        """Why a probe of the ABI in use would count wrongly; empty if it would not."""
        if probe.target.is_return:
            return self.distrusted.get("return", "")
        # An entry probe may have another site: `kprobe.sites` leaves the distrusted ones out.
        return self.distrusted.get("after", "") if probe.target.offset else ""


def sum_or_unknown(*counts: int | None) -> int | None:
    """The sum; None if any of them is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def if_allowed(read: Callable[[int], int | None], fd: int) -> int | None:
    """What `read` returns for a descriptor; None if the kernel refuses.

    A process that dropped privileges since the attach may not ask, which keeps no probe attached.
    """
    try:
        return read(fd)
    except KernelError:
        return None


class Refusal:
    """A probe that an ABI, or the kernel, did not take.

    `errno` is what the kernel said; 0 where the ABI cannot express the probe. `cause` is the error
    that refused all probes of its kind, if one did.
    """

    __slots__ = ("cause", "detail", "errno", "probe")

    def __init__(
        self,
        probe: Probe,
        errno: int,
        detail: str,
        cause: KernelError | UnsupportedError | None = None,
    ) -> None:
        self.probe = probe
        self.errno = errno
        self.detail = detail
        self.cause = cause


class Attachment(ABC):
    """A kernel object, or a bundle of equal ones, with its live probes and its maps.

    The maps live as long as the object: results are read before the reclaim.
    Raises UnsupportedError where the maps cannot be had.
    """

    attach_type: ClassVar[int] = 0
    """The expected_attach_type of its programs."""
    # Up to this many probes are reclaimed quickly if grace periods are expedited.
    _QUICK = 1_000

    def __init__(
        self,
        probes: Sequence[Probe],
        context: AttachContext,
        *,
        ips: int,
        modules_may_change: bool = True,
        beside: Attachment | None = None,
    ) -> None:
        """Each probe is named by up to `ips` instruction pointers. `modules_may_change`: a probe's
        module may be loaded or unloaded while the attachment lives. `beside` is the attachment of
        the entries, whose maps this one uses, if this is the one of their returns: see `calls`.
        """
        self._action = context.action
        self._filters = context.filters
        self._expedites = context.expedites
        for slot, probe in enumerate(probes, NO_SLOT + 1):
            probe.attachment, probe.slot = self, slot
        # In slot order.
        self.live = dict.fromkeys(probes)
        self.detach_group: DetachGroup | None = None
        """The group of all its probes, if they were detached together."""
        self.refused: list[Refusal] = []
        """Probes that it was given and the kernel did not take."""
        self._lost: int | None = 0
        self._by_slot: tuple[Probe, ...] = ()
        self._beside = beside
        self.maps: ProbeMaps
        if beside is not None:
            self.maps = beside.maps
            return
        both = 2 if context.action.kind is ProbeKind.CALL else 1
        sharers: list[Action | Filter] = [self._action, *self._filters]
        self.maps = ProbeMaps(
            len(probes),
            ips=both * ips * len(probes),
            unclaimed=modules_may_change and any(probe.target.module for probe in probes),
            extra_maps=self._map_specs,
            constants=self._constants(),
            shared={name: fd for one in sharers for name, fd in one.shared().items()},
        )
        try:
            self.reader = context.action.reader(self.maps)
            for one in context.filters:
                one.fill(self.maps)
        except BaseException:
            self.maps.close()
            raise
        if context.action.has_events:
            self._by_slot = tuple(probes)

    def _map_specs(self, layout: SlotLayout) -> Iterator[MapSpec]:
        yield from self._action.maps(layout)
        for one in self._filters:
            yield from one.maps()

    def _constants(self) -> dict[str, int]:
        constants = {**self._action.constants(), **self._action.constants_at_return()}
        for one in self._filters:
            constants.update(one.constants())
        for name, value in constants.items():
            # A 32-bit immediate, which the kernel sign-extends.
            if not 0 <= value < 1 << 31:
                raise ValueError(f"the constant {name} is {value}, not from 0 to 2^31 - 1")
        return constants

    @abstractmethod
    def attach(self, context: AttachContext) -> None:
        """Attach `live`; a probe that the kernel refuses moves to `refused`.

        `reclaim` undoes it, even after an error.
        """

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there is no kernel object."""

    def takes_long(self, gone: Sequence[Probe]) -> bool:
        """Whether the reclaim of these probes is too slow to wait for."""
        return len(gone) > (self._QUICK if self._expedites() else FEW)

    @abstractmethod
    def reclaim(self, gone: Sequence[Probe], remains: Remains | None = None) -> Reclaimed:
        """The bottom half: see `batchprobe.commit.queue.Reclaimable`. Closes the maps when no probe
        is live any more.
        """

    @abstractmethod
    def missed(self) -> int | None:
        """Hits that found a probe but ran no program; None where the kernel does not report it.

        Of a trace event it is known once the attachment is gone.
        """

    def missed_in(self) -> Sequence[Probe]:
        """The probes that missed hits, most of all first; none where the kernel does not report it
        by probe.
        """
        return ()

    # -- results -----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The action's values now."""
        with self.maps.lock:
            return self.reader.snapshot(self.maps.hits())

    def final(self, slots: Sequence[int]) -> Final:
        """The final results of these slots: called after the barrier, before the reclaim.

        An error of the reader is raised when the values are read: it must not keep probes attached.
        """
        with self.maps.lock:
            hits = self.maps.final_hits(slots)
            try:
                values = self.reader.final(slots, hits)
            except Exception as error:
                values = _Unreadable(error)
            # `lost` must still answer after the maps are closed.
            self._lost = self._lost_so_far()
        return Final(hits, values)

    def events(self, *, last: bool = False) -> Iterator[Event]:
        """Events since the last call, or some of them; all, if these are the last ones."""
        found: Sequence[RawEvent] = self._raw_events(last=last)
        return (Event(self._by_slot[slot - NO_SLOT - 1], fields) for slot, fields in found)

    def _raw_events(self, *, last: bool) -> Sequence[RawEvent]:
        if not self._action.has_events:
            return ()
        with self.maps.lock:
            if self.maps.is_closed:
                return ()
            found = self.reader.last_events() if last else self.reader.events()
            found = found if isinstance(found, Sequence) else list(found)
            if last:
                # Some readers count what was lost as they read, and the maps may be closed next.
                self._lost = self._lost_so_far()
        return found

    def claim(self, ip: int, probe: Probe, function: Function) -> None:
        """Give an instruction pointer to a probe, whose module was loaded with this function."""
        del function
        self.maps.claim(ip, probe.slot)

    def lost(self) -> int | None:
        """Hits that are counted and not in the values: the action had no room for them, or their
        module was loaded after the attach. Also known after the maps are closed.
        """
        with self.maps.lock:
            if not self.maps.is_closed:
                self._lost = self._lost_so_far()
            return self._lost

    def _lost_so_far(self) -> int | None:
        claimed = self.maps.claimed_total() if self._action.source else 0
        return sum_or_unknown(self.reader.lost(), claimed)

    # -- for subclasses ------------------------------------------------------------------------

    def _fill(self, context: AttachContext) -> bool:
        """Let the action fill its maps; returns whether there are probes to attach.

        To be called when the program is loaded: its kind decides what a map of programs takes.
        """
        if self._beside is None:
            for probe, error in context.action.fill(self.maps, list(self.live), self.attach_type):
                self._refuse(probe, error)
        return bool(self.live)

    def _close_maps(self) -> None:
        """The last probe is gone. The maps belong to the entries."""
        if self._beside is None:
            self.maps.close()

    def _refuse(self, probe: Probe, error: KernelError) -> None:
        self.live.pop(probe, None)
        self.refused.append(Refusal(probe, error.errno, str(error)))

    def _forget(self, gone: Sequence[Probe]) -> None:
        # Usually all, and up to 40,000. After an error, some may be forgotten already.
        if len(gone) == len(self.live) and all(map(self.live.__contains__, gone)):
            self.live.clear()
            return
        for probe in gone:
            self.live.pop(probe, None)


class _Unreadable:
    """The values of a reader that failed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, slot: int) -> object:
        raise self._error
