"""The promises: ratios that a run must reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from _bench.jobs import BATCHPROBE, BCC, BPFTRACE, CALLS, COMMAND, EVERYTHING, FUNCCOUNT
from _bench.results import Key, Result, Results

_MEMORY_MB = 200.0
_GRACE_PERIODS = 3.0
_FDS_MORE = 4.0
# With fewer probes, what a tool does once is more than what it does for each.
_LEAST_EXTRAPOLATED = 100

_START_UP = (
    "of some 0.32 s on 6.1, 0.11 are the interpreter's own start, 0.12 the import of this package, "
    "with hardly anything of the standard library's; the attach itself, with a shell that guards "
    "the trace event, is the rest. funccount's compiler has less to read on older kernels"
)
_ATTACH = (
    "an attach also resolves names, makes maps and loads a program; the kernel's own work is the "
    "floor below"
)
_TEARDOWN = (
    "it takes little more than what the kernel takes to disarm and free such an event, the floor "
    "below, of which half are the walks of all ftrace sites, one for each probe at an entry, where "
    "no place behind it could be had"
)


@dataclass(frozen=True)
class Ratio:
    """One figure, and what it should be."""

    kernel: str
    text: str
    # None if it was not measured.
    value: float | None
    wanted: float
    is_least: bool = True
    unit: str = "x"
    note: str = ""
    # Why it may be missed.
    reason: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it is what it should be; what was not measured is not."""
        if self.value is None:
            return False
        return self.value >= self.wanted if self.is_least else self.value <= self.wanted

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        value = "not measured" if self.value is None else f"{self.value:,.2f} {self.unit}".strip()
        sign = ">=" if self.is_least else "<="
        wanted = f"{sign} {self.wanted:g} {self.unit}".strip()
        note = f" ({self.note})" if self.note else ""
        return f"{verdict:<6} {self.kernel}: {self.text}: {value}, wanted {wanted}{note}"


def check(results: Results, kernels: list[str]) -> list[Ratio]:
    """The ratios of these kernels."""
    ratios: list[Ratio] = []
    for kernel in kernels:
        of = _OfKernel(results, kernel)
        ratios += [*of.start_up(), *of.at_a_thousand(), *of.everything(), *of.descriptors()]
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

    def _per_probe(self, kind: str, count: int, tool: str, value: str) -> tuple[float | None, str]:
        """The value a probe; of a measurement with fewer probes, and that is said, if need be."""
        have = [
            key.count
            for key, result in self._results.items()
            if key.kernel == self._kernel
            and key.kind == kind
            and (key.count == count or _LEAST_EXTRAPOLATED <= key.count < count)
            and result.median(tool, value) is not None
        ]
        if not have:
            return None, ""
        used = max(have)
        result = self._results[Key(self._kernel, kind, used)]
        attached = result.median(tool, "attached")
        note = ""
        if used != count:
            note = f"{tool} was measured with {attached:,.0f} probes, the figure is per probe"
        return _divided(result.median(tool, value), attached), note

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
        mine = _divided(
            self._median(kind, count, tool, value), self._median(kind, count, tool, "attached")
        )
        theirs, note = self._per_probe(kind, count, other, value)
        return Ratio(self._kernel, text, _divided(theirs, mine), wanted, note=note, reason=reason)

    @property
    def _ours(self) -> str:
        return f"{BATCHPROBE} {'multi' if self._has_links else 'event'}"

    def start_up(self) -> Iterator[Ratio]:
        for other, wanted in ((FUNCCOUNT, 20.0), (BPFTRACE, 1.0)):
            ratio = _divided(
                self._median(COMMAND, 1, other, "first"),
                self._median(COMMAND, 1, BATCHPROBE, "first"),
            )
            text = f"from command to first probe armed, against {other}"
            yield Ratio(self._kernel, text, ratio, wanted, reason=_START_UP)

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
        everything = self._get(COMMAND, EVERYTHING)
        text = "all functions, from Ctrl-C to the command's end, against bpftrace"
        yield self._times(text, COMMAND, "exit", BPFTRACE, 1.0, EVERYTHING)
        memory = everything.median(BATCHPROBE, "memory") if everything else None
        yield Ratio(
            self._kernel,
            "all functions, peak memory",
            memory,
            _MEMORY_MB,
            is_least=False,
            unit="MB",
        )
        calls = self._get(CALLS, EVERYTHING)
        final = calls.median(self._ours, "final") if calls else None
        grace = calls.median(self._ours, "grace") if calls else None
        yield Ratio(
            self._kernel,
            "all functions, counts final after",
            _divided(final, grace),
            _GRACE_PERIODS,
            is_least=False,
            unit="grace periods",
        )

    def descriptors(self) -> Iterator[Ratio]:
        count = EVERYTHING if self._has_links else 1000
        one = self._median(COMMAND, 1, BATCHPROBE, "fds")
        many = self._median(COMMAND, count, BATCHPROBE, "fds")
        more = None if one is None or many is None else many - one
        what = "all functions" if count == EVERYTHING else f"{count:,} probes"
        yield Ratio(
            self._kernel,
            f"open files with {what}, more than with 1",
            more,
            _FDS_MORE,
            is_least=False,
            unit="",
        )
