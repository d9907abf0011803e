# SPDX-License-Identifier: Apache-2.0
"""The targets: ratios that a run must reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from _bench.jobs import (
    ACCEPTED,
    BATCHED,
    BATCHPROBE,
    BCC,
    BPFTRACE,
    CALLS,
    COMMAND,
    EVERYTHING,
    FUNCCOUNT,
    FUNCLATENCY,
    HIT,
    LATENCY,
    OWN,
    PRINTF,
    REJECTED,
    TOOLS,
    TRACE,
)
from _bench.results import Key, Result, Results

_FASTER_THAN_FUNCCOUNT = 12.0
_FASTER_THAN_BPFTRACE = 4.0
_MEMORY_MB = 200.0
_GRACE_PERIODS = 3.0
_FDS_MORE = 4.0
_OWN_PROGRAM = 1.2
# A tool compiles for most of its start, which scatters by some percent.
_NOT_SLOWER = 0.95
# With fewer probes, the cost of a start outweighs the cost per probe.
_LEAST_EXTRAPOLATED = 100
# A tool with fewer probes than this share of ours did not do the same work.
_SAME_WORK = 0.9

_START_UP = (
    "start-up is the start of Python, the imports (the package and what it uses of the standard "
    "library) and the attach itself; funccount's compiler has fewer headers to read on older "
    "kernels"
)
_ATTACH = (
    "an attach also resolves names, creates maps and loads a program; the kernel's own share is "
    "the floor below"
)
_TEARDOWN = (
    "nearly all of it is the kernel disarming and freeing the trace event, the floor below; half "
    "of that is walks of all ftrace records, one for each probe that could only go to a function's "
    "entry"
)


class Status(IntEnum):
    """The exit status of scripts/bench."""

    DONE = 0
    MISSED = 1
    NOT_MEASURED = 3
    NO_SETUP = 4


class Verdict(Enum):
    """What a figure says about its target."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Ratio:
    """One figure, and its target."""

    kernel: str
    text: str
    # None if it was not measured.
    value: float | None
    wanted: float
    is_least: bool = True
    unit: str = "x"
    # What the other tool's figure was extrapolated from, if it was.
    extrapolated: str = ""
    # Why nothing was measured, as far as known.
    why_not: str = ""
    # Why the target may be missed.
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Met, missed, or not measured."""
        if self.value is None:
            return Verdict.NOT_MEASURED
        is_met = self.value >= self.wanted if self.is_least else self.value <= self.wanted
        return Verdict.MET if is_met else Verdict.MISSED

    def measured(self, number: str) -> str:
        """The figure, given its value as text, and where it is extrapolated from."""
        if self.value is None:
            return f"not measured ({self.why_not})" if self.why_not else "not measured"
        figure = f"{number} {self.unit}".strip()
        return f"{figure}, extrapolated from {self.extrapolated}" if self.extrapolated else figure

    def __str__(self) -> str:
        number = "" if self.value is None else f"{self.value:,.2f}"
        wanted = f"{'>=' if self.is_least else '<='} {self.wanted:g} {self.unit}".strip()
        verdict = "MISSED" if self.verdict is Verdict.MISSED else self.verdict.value
        return f"{verdict:<12} {self.kernel}: {self.text}: {self.measured(number)}, wanted {wanted}"


def status(ratios: Iterable[Ratio]) -> Status:
    """The exit status of a run that was to measure all of them."""
    verdicts = {ratio.verdict for ratio in ratios}
    if Verdict.MISSED in verdicts:
        return Status.MISSED
    return Status.NOT_MEASURED if Verdict.NOT_MEASURED in verdicts else Status.DONE


def summary(ratios: Sequence[Ratio]) -> str:
    """How many targets are met, missed, not measured."""
    found = Counter(ratio.verdict for ratio in ratios)
    met = f"{found[Verdict.MET]} of {len(ratios)} targets met"
    rest = (Verdict.MISSED, Verdict.NOT_MEASURED)
    return ", ".join([met, *(f"{found[v]} {v.value}" for v in rest if found[v])])


def check(results: Results, kernels: list[str]) -> list[Ratio]:
    """The ratios of these kernels."""
    ratios: list[Ratio] = []
    for kernel in kernels:
        of = _OfKernel(results, kernel)
        ratios += [
            *of.start_up(),
            *of.at_a_thousand(),
            *of.everything(),
            *of.descriptors(),
            *of.tools(),
        ]
    return ratios


def _divided(upper: float | None, lower: float | None) -> float | None:
    return upper / lower if upper is not None and lower else None


class _OfKernel:
    def __init__(self, results: Results, kernel: str) -> None:
        self._results = results
        self._kernel = kernel
        self._has_links = kernel in {"debian-13", "debian-sid"}

    def _get(self, kind: str, count: int) -> Result | None:
        return self._results.get(Key(self._kernel, kind, count))

    def _median(self, kind: str, count: int, tool: str, value: str) -> float | None:
        result = self._get(kind, count)
        return result.median(tool, value) if result else None

    def _why_not(self, kind: str, count: int, *tools: str) -> str:
        result = self._get(kind, count)
        left_out = result.left_out if result else {}
        return "; ".join(f"{tool}: {left_out[tool]}" for tool in tools if tool in left_out)

    def _nearest(self, kind: str, count: int, tool: str, value: str) -> Result | None:
        """The measurement with this many probes, else the largest that can be extrapolated."""
        have = [
            key.count
            for key, result in self._results.items()
            if key.kernel == self._kernel
            and key.kind == kind
            and (key.count == count or _LEAST_EXTRAPOLATED <= key.count < count)
            and result.median(tool, value) is not None
        ]
        return self._get(kind, max(have)) if have else None

    def _times(
        self,
        text: str,
        kind: str,
        value: str,
        other: str,
        wanted: float,
        count: int = 1000,
        reason: str = "",
    ) -> Ratio:
        tool = self._ours if kind == CALLS else BATCHPROBE
        # Ours is never extrapolated.
        own = self._median(kind, count, tool, "attached")
        mine = _divided(self._median(kind, count, tool, value), own)
        used = self._nearest(kind, count, other, value)
        attached = used.median(other, "attached") if used else None
        theirs = _divided(used.median(other, value), attached) if used else None
        extrapolated = ""
        if own and attached and attached < _SAME_WORK * own:
            extrapolated = f"{attached:,.0f} probes of {other}"
        return Ratio(
            self._kernel,
            text,
            _divided(theirs, mine),
            wanted,
            extrapolated=extrapolated,
            why_not=self._why_not(kind, count, tool, other),
            reason=reason,
        )

    @property
    def _ours(self) -> str:
        return f"{BATCHPROBE} {'multi' if self._has_links else 'event'}"

    def start_up(self) -> Iterator[Ratio]:
        for other, wanted in (
            (FUNCCOUNT, _FASTER_THAN_FUNCCOUNT),
            (BPFTRACE, _FASTER_THAN_BPFTRACE),
        ):
            ratio = _divided(
                self._median(COMMAND, 1, other, "first"),
                self._median(COMMAND, 1, BATCHPROBE, "first"),
            )
            yield Ratio(
                self._kernel,
                f"from command to first probe armed, against {other}",
                ratio,
                wanted,
                why_not=self._why_not(COMMAND, 1, BATCHPROBE, other),
                reason=_START_UP,
            )

    def at_a_thousand(self) -> Iterator[Ratio]:
        text = "1,000 probes attached, against bcc's calls"
        wanted = 50.0 if self._has_links else 2.0
        yield self._times(text, CALLS, "attach", BCC, wanted, reason=_ATTACH)
        if not self._has_links:
            text = "1,000 probes removed, against bcc's calls (funccount's, too)"
            yield self._times(text, CALLS, "detach", BCC, 150.0, reason=_TEARDOWN)
            text = "1,000 probes removed, from Ctrl-C to the command's end, against bpftrace"
            yield self._times(text, COMMAND, "exit", BPFTRACE, 150.0, reason=_TEARDOWN)

    def everything(self) -> Iterator[Ratio]:
        if not self._has_links:
            return
        text = "all functions, from Ctrl-C to the command's end, against bpftrace"
        yield self._times(text, COMMAND, "exit", BPFTRACE, 1.0, EVERYTHING)
        yield Ratio(
            self._kernel,
            "all functions, peak memory",
            self._median(COMMAND, EVERYTHING, BATCHPROBE, "memory"),
            _MEMORY_MB,
            is_least=False,
            unit="MB",
            why_not=self._why_not(COMMAND, EVERYTHING, BATCHPROBE),
        )
        yield Ratio(
            self._kernel,
            "all functions, counts final after",
            _divided(
                self._median(CALLS, EVERYTHING, self._ours, "final"),
                self._median(CALLS, EVERYTHING, self._ours, "grace"),
            ),
            _GRACE_PERIODS,
            is_least=False,
            unit="grace periods",
            why_not=self._why_not(CALLS, EVERYTHING, self._ours),
        )

    def tools(self) -> Iterator[Ratio]:
        """Of the full run only."""
        wanted = 30.0 if self._has_links else 60.0
        for key in sorted(self._results):
            if key.kernel == self._kernel and key.kind == TOOLS:
                what = f"funccount of {key.count} functions through batchprobe"
                for value, text, least in (
                    ("exit", "from Ctrl-C to its end", wanted),
                    # bcc arms one by one, but the tool says nothing before the last.
                    ("all", "from command to all probes armed", _NOT_SLOWER),
                ):
                    ratio = _divided(
                        self._median(TOOLS, key.count, FUNCCOUNT, value),
                        self._median(TOOLS, key.count, BATCHED, value),
                    )
                    why_not = self._why_not(TOOLS, key.count, FUNCCOUNT, BATCHED)
                    yield Ratio(self._kernel, f"{what}, {text}", ratio, least, why_not=why_not)
        if self._median(HIT, 1, OWN, "cost") is not None:
            ratio = _divided(self._median(HIT, 1, OWN, "cost"), self._median(HIT, 1, BCC, "cost"))
            text = "a hit of an own program, against bcc's attach of the same"
            yield Ratio(self._kernel, text, ratio, _OWN_PROGRAM, is_least=False)

        for tool, other, text in (
            (LATENCY, FUNCLATENCY, "a call that latency measures, against funclatency"),
            (TRACE, PRINTF, "a hit with its arguments as an event, against bpftrace's printf()"),
            (REJECTED, ACCEPTED, "a hit that a filter rejects, against one that it accepts"),
        ):
            if self._median(HIT, 1, tool, "cost") is not None:
                ratio = _divided(
                    self._median(HIT, 1, tool, "cost"), self._median(HIT, 1, other, "cost")
                )
                yield Ratio(self._kernel, text, ratio, 1.0, is_least=False)

    def descriptors(self) -> Iterator[Ratio]:
        count = EVERYTHING if self._has_links else 1000
        one = self._median(COMMAND, 1, BATCHPROBE, "fds")
        many = self._median(COMMAND, count, BATCHPROBE, "fds")
        what = "all functions" if count == EVERYTHING else f"{count:,} probes"
        yield Ratio(
            self._kernel,
            f"open files with {what}, more than with 1",
            None if one is None or many is None else many - one,
            _FDS_MORE,
            is_least=False,
            unit="",
            why_not=self._why_not(COMMAND, count, BATCHPROBE),
        )
