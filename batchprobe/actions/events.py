# SPDX-License-Identifier: Apache-2.0
"""Events: a record for each hit, or for each call with its result."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from batchprobe import arch
from batchprobe._util.counted import counted
from batchprobe.actions.base import Action, Column, RawEvent, Reader
from batchprobe.actions.call_stacks import CallStacks
from batchprobe.actions.condition import Condition
from batchprobe.actions.event_counts import EventCounts
from batchprobe.actions.event_records import Decoder, Records
from batchprobe.actions.latency import cost_notes
from batchprobe.actions.plan import NOTHING, PLAN_SIZE, Plan, PlanError, make_plan
from batchprobe.errors import KernelError
from batchprobe.filters.base import ProbeKind
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.member_path import PathError
from batchprobe.functions.signatures import NoTypesError, Signature, Signatures, signatures_of
from batchprobe.functions.syscall_arguments import with_syscall_arguments
from batchprobe.functions.targets import Target
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.probe import Probe
from batchprobe.programs.maps import CELL_SIZE, Cells, MapSpec, SlotLayout, lift_memlock_limit
from batchprobe.programs.probe_maps import Hits, ProbeMaps
from batchprobe.programs.source import read_bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CallEvents", "EventCounts", "Events"]

# As in bpf/events.h and bpf/values.h, in u64.
_EMITTED, _LOST, _UNWANTED, _LIMITED, _MISSED, _DROPPED, _TALLY = range(7)
_LIMIT, _RATE, _BUDGET = 0, 2, 5
_EVENT = (64 + 8 * 16 + 5 * 64) // 8
_RING_BYTES = 16 << 20
_AT_ONCE = 4096
_MAX_SAVED = 1 << 13
"""Calls that are open at one time, of functions whose results are asked for: 4 MB."""


class Events(Action):
    """Records each hit: its time, task and CPU, and at an entry the arguments by name and type, at
    a return (`%return`) the result.

    The types are those of the kernel (BTF). A function without them has its registers recorded,
    and a reason in `untyped`.
    """

    name = "events"
    unit = "functions"
    source = f"#include <uapi/linux/ptrace.h>\n{read_bpf('values.h', 'events.h', 'hit_events.h')}"
    has_events = True

    def __init__(
        self,
        *,
        where: str | None = None,
        arguments: Sequence[str] = (),
        limit: int | None = None,
        rate: int | None = None,
    ) -> None:
        """`where` is a condition, `arguments` are paths of more values to show, such as
        `sk.__sk_common.skc_dport`; functions that lack what these name are skipped. At most `limit`
        events are recorded, and at most `rate` in a second.

        Raises ConditionError for a condition that cannot be understood.
        """
        self.condition: Condition | None = None
        if where is not None:
            from batchprobe.actions.condition_parse import parse  # noqa: PLC0415  (few ask)

            self.condition = parse(where)
        self._arguments = tuple(arguments)
        self.limit = limit
        self._rate = rate
        self._signatures: Signatures | None = None
        self._tracefs: Tracefs | None = None
        self._plans: dict[Target, Plan] = {}
        self._plans_of_prototypes: dict[tuple[str | None, int, bool], Plan] = {}
        self.untyped: dict[str, str] = {}
        """Functions without types, and the reason of each."""
        self._readers: WeakKeyDictionary[ProbeMaps, _Reader] = WeakKeyDictionary()
        self._budget: Cells | None = None

    # -- which functions -----------------------------------------------------------------------

    def prepare(self, targets: Sequence[Target], symbols: KernelSymbols) -> Mapping[Target, str]:
        """Make the plan of each function; returns those that lack what is asked for."""
        if self._signatures is None:
            self._signatures = signatures_of(symbols)
        refused = {}
        for target in targets:
            try:
                self._plans[target] = self._plan(target, self._signatures)
            except (PlanError, PathError) as error:
                refused[target] = str(error)
                # It is not shown at all.
                self.untyped.pop(target.label, None)
        return refused

    def _plan(self, target: Target, signatures: Signatures) -> Plan:
        signature: Signature | None = None
        is_call = self.kind is ProbeKind.CALL
        at_entry = is_call or not (target.is_return or target.offset)
        if target.offset:
            self.untyped[target.label] = "its arguments are known at the entry only"
        else:
            try:
                signature = with_syscall_arguments(
                    signatures.of(target.name, target.module),
                    target.name,
                    arch.current(),
                    self._read_format,
                )
            except NoTypesError as error:
                self.untyped[target.label] = str(error)
                if self._arguments or self.condition is not None:
                    raise PlanError(str(error)) from error
        at_return = is_call or target.is_return
        key = None
        if signature is not None and signature.number and not signature.accesses:
            # Many functions share one.
            key = signature.module, signature.number, at_return
            if (known := self._plans_of_prototypes.get(key)) is not None:
                return known
        plan = make_plan(
            arch.current(),
            signature,
            signatures.access,
            at_entry=at_entry,
            at_return=at_return,
            paths=self._arguments,
            condition=self.condition,
        )
        if key:
            self._plans_of_prototypes[key] = plan
        return plan

    def _read_format(self, group: str, event: str) -> str:
        # Only system calls need tracefs.
        if self._tracefs is None:
            self._tracefs = Tracefs.find()
        return self._tracefs.event_format(group, event)

    # -- output --------------------------------------------------------------------------------

    @property
    def columns(self) -> Sequence[Column]:
        """Events, and hits that have none."""
        return (
            Column("EVENTS", lambda value: value.emitted),
            Column("LOST", lambda value: value.lost),
        )

    def to_json(self, value: Any) -> object:
        """All numbers that are not 0, and the number of events."""
        counts = {name: getattr(value, name) for name in value.names()}
        return {name: count for name, count in counts.items() if count or name == "emitted"}

    def unfinished(self, value: Any) -> int | None:
        """Calls that have not returned, or whose return was missed."""
        if self.kind is not ProbeKind.CALL:
            return None
        unfinished: int = value.unfinished + value.missed
        return unfinished

    def notes(self) -> Sequence[str]:
        """Which functions have no types."""
        if not self.untyped:
            return ()
        reasons: dict[str, list[str]] = {}
        for label, reason in self.untyped.items():
            reasons.setdefault(reason, []).append(label)
        return [
            f"{counted(len(labels), 'function')} shown without types ({labels[0]}"
            f"{' and others' if labels[1:] else ''}): {reason}"
            for reason, labels in reasons.items()
        ]

    # -- maps ----------------------------------------------------------------------------------

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """A plan for each slot, and the ring buffer."""
        return [
            MapSpec.array("plans", layout.slots + 1, PLAN_SIZE // CELL_SIZE),
            MapSpec.array("tallies", layout.slots + 1, _TALLY),
            MapSpec.per_cpu("scratch", _EVENT),
            MapSpec.ring("ring", _RING_BYTES),
        ]

    def start(self) -> None:
        """Create what all kernel objects share."""
        if self._budget is None:
            lift_memlock_limit()
            self._budget = Cells(MapSpec.array("budget", 1, _BUDGET))
            self._budget.cells[_LIMIT] = self.limit or 0
            self._budget.cells[_RATE] = self._rate or 0

    def shared(self) -> Mapping[str, int]:
        """The limits."""
        return {} if self._budget is None else {"budget": self._budget.fd}

    def stop(self) -> None:
        """Free it."""
        if self._budget is not None:
            self._budget.close()
            self._budget = None

    def fill(
        self, maps: ProbeMaps, probes: Sequence[Probe], attach_type: int
    ) -> Iterable[tuple[Probe, KernelError]]:
        """Put the plans into the maps."""
        del attach_type
        plans = maps.arrays["plans"]
        if plans is not None:
            memory = plans.cells.cast("B")
            decoders = self._readers[maps]
            for probe in probes:
                plan = self._plans.get(probe.target)
                at = probe.slot * PLAN_SIZE
                memory[at : at + PLAN_SIZE] = NOTHING if plan is None else plan.packed
                if plan is not None:
                    decoders.add(probe.slot, plan)
        return ()

    def reader(self, maps: ProbeMaps) -> Reader:
        """Reads the ring buffer of one kernel object."""
        found = self._readers[maps] = _Reader(maps, is_call=self.kind is ProbeKind.CALL)
        return found


class CallEvents(Events):
    """Records each call when it returns: its arguments, its result, and how long it took."""

    name = "call-events"
    source = (
        "#include <uapi/linux/ptrace.h>\n"
        f"{read_bpf('values.h', 'events.h', 'calls.h', 'call_events.h')}"
    )
    kind = ProbeKind.CALL

    def __init__(self, **options: Any) -> None:
        """As for Events; `where` may also name `result` and `duration`."""
        super().__init__(**options)
        self._stacks = CallStacks(saved_size=CELL_SIZE * _EVENT, most_saved=_MAX_SAVED)
        self.probe_ns: dict[str, float] = {}
        """As in Latency."""

    def note_cost(self, abi: str, nanoseconds: float) -> None:
        """Remember it."""
        self.probe_ns[abi] = nanoseconds

    def notes(self) -> Sequence[str]:
        """Also what the probes cost."""
        return [*super().notes(), *cost_notes(self.probe_ns)]

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """As for Events, and what following calls takes."""
        return [*super().maps(layout), *CallStacks.maps()]

    def start(self) -> None:
        """Create the stacks of open calls, and the place for what was read at their entries."""
        super().start()
        try:
            self._stacks.start()
        except BaseException:
            self.stop()
            raise

    def shared(self) -> Mapping[str, int]:
        """All that they share."""
        return {**super().shared(), **self._stacks.shared()}

    def stop(self) -> None:
        """Free it."""
        super().stop()
        self._stacks.stop()


class _Reader(Reader):
    def __init__(self, maps: ProbeMaps, *, is_call: bool) -> None:
        tallies = maps.arrays["tallies"]
        if tallies is None:
            raise TypeError("tallies is an array")
        self._tallies = tallies
        self._ring = maps.rings["ring"]
        self._is_call = is_call
        self._decoders = _Decoders(is_call=self._is_call)

    def add(self, slot: int, plan: Plan) -> None:
        """Events of this slot have what is in the plan."""
        self._decoders.plans[slot] = plan

    def events(self) -> Sequence[RawEvent]:
        """Some of what is in the ring buffer: more would wait elsewhere, and without a limit."""
        return self._taken(_AT_ONCE)

    def last_events(self) -> Sequence[RawEvent]:
        """All that is in it."""
        return self._taken(None)

    def _taken(self, most: int | None) -> Records:
        offset = time.time_ns() - time.monotonic_ns()
        return Records(*self._ring.take(most), self._decoders, offset)

    def snapshot(self, hits: Hits) -> _Values:
        """The tallies now."""
        return _Values(memoryview(self._tallies.cells.tobytes()).cast("Q"), hits, self._is_call)

    def lost(self) -> int:
        """Hits for which there was no room."""
        cells = self._tallies.cells
        return sum(cells[_LOST::_TALLY]) + sum(cells[_DROPPED::_TALLY])


class _Decoders(dict[int, Decoder]):
    """By slot, each made when its first event comes: most functions of a long list have none."""

    def __init__(self, *, is_call: bool) -> None:
        self.plans: dict[int, Plan] = {}
        self._is_call = is_call

    def __missing__(self, slot: int) -> Decoder:
        found = self[slot] = Decoder(self.plans[slot], is_call=self._is_call)
        return found


class _Values:
    """EventCounts by slot, made when read."""

    def __init__(self, cells: memoryview, hits: Hits, is_call: bool) -> None:
        self._cells = cells
        self._hits = hits
        self._is_call = is_call

    def __getitem__(self, slot: int) -> EventCounts:
        tally = self._cells[slot * _TALLY : (slot + 1) * _TALLY].tolist()
        unfinished = max(self._hits[slot] - sum(tally), 0) if self._is_call else 0
        return EventCounts(
            emitted=tally[_EMITTED],
            lost=tally[_LOST] + tally[_DROPPED],
            unwanted=tally[_UNWANTED],
            limited=tally[_LIMITED],
            missed=tally[_MISSED],
            unfinished=unfinished,
        )
