# SPDX-License-Identifier: Apache-2.0
"""Latency: how long calls take, and how much of that in the function itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from batchprobe.actions.base import Action, Column, Reader
from batchprobe.actions.call_stacks import CallStacks
from batchprobe.filters.base import ProbeKind
from batchprobe.programs.maps import Cells, MapSpec, SlotLayout, possible_cpus
from batchprobe.programs.probe_maps import Hits, ProbeMaps
from batchprobe.programs.source import read_bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SORTS", "CallTimes", "Latency", "cost_notes", "shown_time"]

# As in bpf/latency.h, in u64.
_BUCKETS = 40
_CALLS, _TOTAL, _SELF, _MISSED, _DROPPED, _HISTOGRAM = range(6)
_CELLS = _HISTOGRAM + _BUCKETS
# Copies of a function's values, so that CPUs seldom write to the same one.
_MAX_COPIES = 8
_BAR = 40


class CallTimes:
    """The calls of one function. Times are in nanoseconds, and include those of the probes.

    `self_ns` is `total_ns` less the time in traced functions that it called. `unfinished` calls
    were running when the probe was detached, or (`missed`) have a return that the kernel missed;
    `dropped` are those for which there was no room. None of these is in `calls`. `histogram` has
    the number of calls by the lowest time of a bucket; the next bucket begins at twice that, and
    the last one, of 2**39 ns (9 minutes), has no end.
    """

    __slots__ = (
        "_buckets",
        "calls",
        "dropped",
        "max_ns",
        "missed",
        "self_ns",
        "total_ns",
        "unfinished",
    )

    def __init__(
        self,
        *,
        calls: int,
        total_ns: int,
        self_ns: int,
        max_ns: int,
        unfinished: int,
        missed: int,
        dropped: int,
        buckets: Sequence[int],
    ) -> None:
        """`buckets` are calls by the exponent of their lowest time to the base 2."""
        self.calls = calls
        self.total_ns = total_ns
        self.self_ns = self_ns
        self.max_ns = max_ns
        self.unfinished = unfinished
        self.missed = missed
        self.dropped = dropped
        self._buckets = buckets

    @property
    def histogram(self) -> dict[int, int]:
        """Calls by the lowest time of their bucket; empty buckets are left out."""
        return {1 << at: calls for at, calls in enumerate(self._buckets) if calls}

    @property
    def average_ns(self) -> float:
        """The mean of all calls; 0 if there were none."""
        return self.total_ns / self.calls if self.calls else 0.0

    def quantile(self, q: float) -> float:
        """The time that a share `q` of the calls did not exceed, in nanoseconds; 0 without calls.

        Estimated from the histogram, whose buckets double: calls of a bucket are taken as spread
        evenly over it. Raises ValueError if `q` is not from 0 to 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is from 0 to 1, not {q}")
        wanted = q * sum(self._buckets)
        for at, calls in enumerate(self._buckets):
            if calls and wanted <= calls:
                low = 1 << at
                # The last one has no end.
                is_last = at == len(self._buckets) - 1
                end = max(self.max_ns, 2 * low) if is_last else 2 * low
                return min(low + (end - low) * wanted / calls, float(self.max_ns))
            wanted -= calls
        return float(self.max_ns)

    def __bool__(self) -> bool:
        return bool(self.calls or self.unfinished or self.missed or self.dropped)

    def __sub__(self, earlier: CallTimes) -> CallTimes:
        """What came since; the longest call and those that are open are as now."""
        return CallTimes(
            calls=self.calls - earlier.calls,
            total_ns=self.total_ns - earlier.total_ns,
            self_ns=self.self_ns - earlier.self_ns,
            max_ns=self.max_ns,
            unfinished=self.unfinished,
            missed=self.missed - earlier.missed,
            dropped=self.dropped - earlier.dropped,
            buckets=[now - was for now, was in zip(self._buckets, earlier._buckets, strict=True)],
        )

    def __repr__(self) -> str:
        return f"<CallTimes {self.calls} calls, {shown_time(self.average_ns)} each>"


def shown_time(nanoseconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("ns", 1), ("us", 1_000), ("ms", 1_000_000)):
        if nanoseconds < 999.5 * size:
            value = nanoseconds / size
            digits = 0 if unit == "ns" or value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
    return f"{nanoseconds / 1e9:.3g} s" if nanoseconds < 999.5e9 else f"{nanoseconds / 1e9:.0f} s"


def cost_notes(probe_ns: Mapping[str, float]) -> Sequence[str]:
    """A sentence about what probes add to a call, by ABI; none if that is unknown."""
    costs = [f"{shown_time(cost)} ({abi})" for abi, cost in probe_ns.items()]
    return [f"the probes add about {' or '.join(costs)} to a call"] if costs else ()


SORTS: dict[str, Callable[[CallTimes], float]] = {
    "total": lambda value: value.total_ns,
    "self": lambda value: value.self_ns,
    "calls": lambda value: value.calls,
    "avg": lambda value: value.average_ns,
    "p50": lambda value: value.quantile(0.5),
    "p99": lambda value: value.quantile(0.99),
    "max": lambda value: value.max_ns,
}
"""What a table of latencies can be sorted by."""


def _drawn(value: CallTimes) -> Iterator[str]:
    """Bars, one for each bucket from the first to the last that has calls."""
    found = value.histogram
    if not found:
        return
    most, low = max(found.values()), min(found)
    while low <= max(found):
        calls = found.get(low, 0)
        bar = "#" * round(_BAR * calls / most) or ("." if calls else "")
        limits = f"{shown_time(low):>8} to {shown_time(2 * low):<8}"
        if low == 1 << _BUCKETS - 1:
            limits = f"{shown_time(low):>8} or more{'':4}"
        yield f"{limits} {calls:>10} {bar}".rstrip()
        low *= 2


def _time_column(name: str) -> Column:
    time = SORTS[name]
    return Column(name.upper(), lambda value: shown_time(time(value)))


class Latency(Action):
    """Measures calls from entry to return, nested and recursive ones too, in each thread."""

    name = "latency"
    unit = "functions"
    source = f"#include <uapi/linux/ptrace.h>\n{read_bpf('calls.h', 'latency.h')}"
    kind = ProbeKind.CALL

    def __init__(self, sort: str = "total", *, draws_histograms: bool = False) -> None:
        """`sort` is one of SORTS. Raises ValueError for another one."""
        if sort not in SORTS:
            raise ValueError(f"sort by {', '.join(SORTS)}, not by {sort}")
        self._rank = SORTS[sort]
        copies = 1
        while copies < min(possible_cpus(), _MAX_COPIES):
            copies *= 2
        self._copies = copies
        self._draws_histograms = draws_histograms
        self.probe_ns: dict[str, float] = {}
        """By ABI, what the probes of a call add to it in nanoseconds, as measured on one function
        before the first attach, or once since the boot."""
        self._stacks = CallStacks()

    # -- output ------------------------------------------------------------------------------

    @property
    def columns(self) -> Sequence[Column]:
        """Calls, and their times."""
        times = [_time_column(name) for name in SORTS if name != "calls"]
        return (Column("CALLS", SORTS["calls"]), *times)

    def rank(self, value: Any) -> Any:
        """What it was told to sort by."""
        return self._rank(value)

    def details(self, value: Any) -> Sequence[str]:
        """The distribution of the times, if it was asked for."""
        return list(_drawn(value)) if self._draws_histograms else ()

    def unfinished(self, value: Any) -> int:
        """Calls that have not returned, or whose return was missed."""
        unfinished: int = value.unfinished + value.missed
        return unfinished

    def notes(self) -> Sequence[str]:
        """What the probes cost."""
        return cost_notes(self.probe_ns)

    def note_cost(self, abi: str, nanoseconds: float) -> None:
        """Remember it."""
        self.probe_ns[abi] = nanoseconds

    def to_json(self, value: Any) -> object:
        """All numbers; the histogram by the lowest time of each bucket."""
        return {
            "calls": value.calls,
            "total_ns": value.total_ns,
            "self_ns": value.self_ns,
            "max_ns": value.max_ns,
            "unfinished": value.unfinished,
            "missed": value.missed,
            "dropped": value.dropped,
            "histogram": {str(low): calls for low, calls in value.histogram.items()},
        }

    # -- maps --------------------------------------------------------------------------------

    def constants(self) -> Mapping[str, int]:
        """Which of a function's copies a CPU writes to."""
        return {"COPY_MASK": self._copies - 1}

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """The values of each slot."""
        return [
            MapSpec.array("latencies", (layout.slots + 1) * self._copies, _CELLS),
            MapSpec.array("longest", layout.cells),
            *CallStacks.maps(),
        ]

    def start(self) -> None:
        """Create the stacks of open calls."""
        self._stacks.start()

    def shared(self) -> Mapping[str, int]:
        """The stacks of open calls."""
        return self._stacks.shared()

    def stop(self) -> None:
        """Free the stacks."""
        self._stacks.stop()

    def reader(self, maps: ProbeMaps) -> Reader:
        """Reads the times of calls."""
        return _Reader(maps, self._copies)


class _Reader(Reader):
    def __init__(self, maps: ProbeMaps, copies: int) -> None:
        arrays = maps.arrays
        self._latencies, self._longest = _array(arrays, "latencies"), _array(arrays, "longest")
        self._layout = maps.layout
        self._copies = copies

    def snapshot(self, hits: Hits) -> _Values:
        return _Values(
            memoryview(self._latencies.cells.tobytes()).cast("Q"),
            memoryview(self._longest.cells.tobytes()).cast("Q"),
            self._copies,
            self._layout,
            hits,
        )

    def lost(self) -> int:
        """Calls for which there was no room."""
        return sum(self._latencies.cells[_DROPPED::_CELLS])


def _array(arrays: Mapping[str, Cells | None], name: str) -> Cells:
    array = arrays[name]
    if array is None:
        raise TypeError(f"{name} is an array")
    return array


class _Values:
    """CallTimes by slot, copied at once, added up when read."""

    def __init__(
        self,
        latencies: memoryview,
        longest: memoryview,
        copies: int,
        layout: SlotLayout,
        hits: Hits,
    ) -> None:
        self._latencies = latencies
        self._longest = longest
        self._copies = copies
        self._layout = layout
        self._hits = hits

    def __getitem__(self, slot: int) -> CallTimes:
        copies = self._copies
        begin = slot * copies * _CELLS
        cells = self._latencies[begin : begin + copies * _CELLS].tolist()
        if copies > 1:
            cells = [sum(cells[at::_CELLS]) for at in range(_CELLS)]
        entered = self._hits[slot]
        over = cells[_CALLS] + cells[_MISSED] + cells[_DROPPED]
        return CallTimes(
            calls=cells[_CALLS],
            total_ns=cells[_TOTAL],
            self_ns=cells[_SELF],
            max_ns=max(self._longest[slot :: self._layout.stride][: self._layout.cpus]),
            # While calls go on, some of those read last may not be in the hits yet.
            unfinished=max(entered - over, 0),
            missed=cells[_MISSED],
            dropped=cells[_DROPPED],
            buckets=cells[_HISTOGRAM:_CELLS],
        )
