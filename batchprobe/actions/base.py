# SPDX-License-Identifier: Apache-2.0
"""What an action is, and what reads its result.

Every action counts hits: the gate, slot 0 and the comparison with the kernel's own count need them
(bpf/hit.h). An action adds to that: C that runs on each counted hit, maps, and a Reader.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from batchprobe.errors import KernelError
from batchprobe.filters.base import ProbeKind
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe, Snapshot
from batchprobe.programs.maps import MapSpec, SlotLayout
from batchprobe.programs.probe_maps import Hits, ProbeMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

__all__ = ["Action", "Column", "RawEvent", "Reader"]


RawEvent = tuple[int, Mapping[str, object]]
"""One hit as a reader of events delivers it: the slot, and what JSON can hold, by names other than
`type`, `schema` and `function`."""


class Column:
    """A column of a table of values.

    `cell` turns a value into a number or text; in the first column a number, unless the action
    ranks values in another way.
    """

    __slots__ = ("cell", "title")

    def __init__(self, title: str, cell: Callable[[Any], Any]) -> None:
        self.title = title
        self.cell = cell


class Reader(ABC):
    """Reads what an action left in the maps of one kernel object."""

    @abstractmethod
    def snapshot(self, hits: Hits) -> Snapshot:
        """The values now, by slot. `hits` were read at the same moment. Calls do not overlap."""

    def final(self, slots: Sequence[int], hits: Hits) -> Snapshot:
        """The final values of these slots, which are all that will be asked for.

        Called once for a detached probe, after the barrier and before the reclaim: no program runs
        for these slots any more. The maps may be freed as soon as it returns. `hits` has these
        slots only.
        """
        del slots
        return self.snapshot(hits)

    def events(self) -> Iterable[RawEvent]:
        """Events since the last call, or some of them: it is called until there are none. Only
        called if the action `has_events`. A Sequence may be read when the maps are gone.
        """
        return ()

    def last_events(self) -> Iterable[RawEvent]:
        """All events since the last call: the program runs no more."""
        return self.events()

    def lost(self) -> int | None:
        """Hits so far for which the action had no room; None if that cannot be known."""
        return 0


class Action(ABC):
    """What happens on a hit. A subclass sets the class variables it needs and makes a Reader.

    A value is an int, or an object that is true if there is anything to show and that can subtract
    an earlier value, which gives what came since.
    """

    name: ClassVar[str]
    """Identifies it in messages and in the shipped bytecode."""
    unit: ClassVar[str]
    """What its values are, in lower case: the key of JSON records, the title of its column."""
    called: ClassVar[str] = "calls"
    """The word for a true value in the title of the live table: "5 with calls"."""
    source: ClassVar[str] = ""
    """C as bcc takes it; empty if it only counts. Defines
    `static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)`, which runs for each hit
    that counts; `cell` is cpu * stride + slot. No other run of it on the same CPU overlaps."""
    kind: ClassVar[ProbeKind] = ProbeKind.AS_LISTED
    """With CALL, `source` also defines `on_return(ctx, slot, cell)`, which runs when a function
    returns, whatever the filters say of that."""
    has_events: ClassVar[bool] = False
    limit: int | None = None
    """Events after which the run is over."""

    @property
    def columns(self) -> Sequence[Column]:
        """How a table shows its values."""
        return (Column(self.unit.upper(), lambda value: value),)

    def rows(self, value: Any) -> Sequence[Any]:
        """What a table shows of a value, a row each; `columns` and `rank` are about these."""
        return (value,)

    def details(self, value: Any) -> Sequence[str]:
        """Lines about one of the first values, below a final table."""
        del value
        return ()

    def unfinished(self, value: Any) -> int | None:
        """Hits of a value that have not come to their end; None if a hit has no end."""
        del value
        return None

    def notes(self) -> Sequence[str]:
        """Sentences about how far the values can be trusted, for the end of a run."""
        return ()

    def note_cost(self, abi: str, nanoseconds: float) -> None:
        """Called before an attach, with what a pair of probes adds to a call."""
        del abi, nanoseconds

    def to_json(self, value: Any) -> object:
        """A value as JSON can hold it."""
        return value

    def constants(self) -> Mapping[str, int]:
        """As `Filter.constants`."""
        return {}

    def constants_at_return(self) -> Mapping[str, int]:
        """As `constants`, of those that only `on_return` uses."""
        return {}

    def prepare(self, targets: Sequence[Target], symbols: KernelSymbols) -> Mapping[Target, str]:
        """Get ready for these functions; returns those that it has nothing to ask of, each with the
        reason.
        """
        del targets, symbols
        return {}

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """Maps that `source` declares with one element, with the sizes to create them with."""
        del layout
        return ()

    def fill(
        self, maps: ProbeMaps, probes: Sequence[Probe], attach_type: int
    ) -> Iterable[tuple[Probe, KernelError]]:
        """Set the initial contents of the maps of one kernel object, before any probe can fire.

        Its program is loaded, with this expected_attach_type. Returns the probes that it cannot
        carry, each with the reason.
        """
        del maps, probes, attach_type
        return ()

    def needs_entry(self, probe: Probe) -> bool:
        """Whether the probe works at the entry of its function only."""
        del probe
        return False

    def start(self) -> None:  # noqa: B027  (few share anything)
        """As `Filter.start`."""

    def shared(self) -> Mapping[str, int]:
        """As `Filter.shared`."""
        return {}

    def stop(self) -> None:  # noqa: B027  (few share anything)
        """As `Filter.stop`."""

    def rank(self, value: Any) -> Any:
        """What a table is sorted by, largest first."""
        return self.columns[0].cell(value)

    @abstractmethod
    def reader(self, maps: ProbeMaps) -> Reader:
        """Reads the values from the maps of one kernel object."""
