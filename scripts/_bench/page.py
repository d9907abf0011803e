# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.md, from raw results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _bench import plots, targets
from _bench.jobs import (
    BATCHED,
    BATCHPROBE,
    BCC,
    BPFTRACE,
    CALLS,
    COMMAND,
    EVENT_FLOOR,
    FIRST_START,
    FUNCCOUNT,
    HIT,
    LINK,
    OWN,
    TOOLS,
    Job,
)
from _bench.results import Result, Results
from _bench.targets import Verdict

_FLOORS: Final = (LINK, EVENT_FLOOR)
# More processes than this wanted a CPU beside the measured guest.
_BUSY: Final = 0.7


@dataclass(frozen=True)
class Figure:
    """A value, shown as a table per kernel and as a plot."""

    kind: str
    value: str
    title: str
    says: str
    # Why another tool may lead.
    reason: str
    unit: str = "s"
    is_plotted: bool = True


_FIGURES: Final = (
    Figure(
        CALLS,
        "detach",
        "Teardown",
        "All probes removed, through the libraries: `Session.detach_all` of batchprobe, a "
        "`detach_kprobe` for each probe of bcc. The floors are what the kernel's interface costs a "
        "program that does nothing else: one close of a link; one close of a trace event and its "
        "deletion with expedited grace periods.",
        "the barrier that makes counts final comes before the reclaim; for a handful of probes it "
        "takes longer than the rest, together with Python",
    ),
    Figure(
        CALLS,
        "attach",
        "Attach",
        "All probes attached, in a session that is ready: symbols are read and programs are "
        "loaded (of bcc, too). For an event the floor is the kernel's own check of each kprobe "
        "(`jump_label_text_reserved` decodes every jump label).",
        "one attach of batchprobe also resolves names, reads the functions' code, makes maps and "
        "loads a program, whatever the number of probes",
    ),
    Figure(
        CALLS,
        "start",
        "Getting ready",
        "The first attach of a session, of one function: mostly the time to read the kernel's "
        "symbols. bcc compiles its program instead, which only funccount's figures include.",
        "",
        is_plotted=False,
    ),
    Figure(
        COMMAND,
        "first",
        "Start-up",
        "From exec of the command to the first probe armed, which shows in the kernel's own code. "
        "batchprobe is the console script that pip installs, in a venv with the distribution's "
        "Python. Each tool has run before, so its files are in memory; batchprobe then also has "
        "the kernel's symbols, which it keeps for the boot: its first start, without them, has a "
        "column of its own.",
        "the start of Python and its imports, the first time also reading kallsyms; and all probes "
        "are armed together, when the last is there",
    ),
    Figure(
        COMMAND,
        "all",
        "All armed",
        "From exec of the command to the last probe armed.",
        "starting Python and its libraries; where probes are defined one by one, the kernel's "
        "check of each",
    ),
    Figure(
        COMMAND,
        "final",
        "Results",
        "From Ctrl-C to the first line of results. funccount reads its counters while they still "
        "count, without any barrier.",
        "batchprobe waits for a grace period before it shows counts, so that they are final",
    ),
    Figure(
        COMMAND,
        "exit",
        "Ctrl-C",
        "From Ctrl-C to the end of the command: by then the kernel has removed all.",
        "the barrier, and Python's own end",
    ),
    Figure(
        COMMAND,
        "memory",
        "Memory",
        "Peak of resident memory (VmHWM).",
        "Python, its libraries and the kernel's symbols, which are read whole",
        unit="MB",
    ),
    Figure(
        COMMAND,
        "fds",
        "Open files",
        "File descriptors while probes are on.",
        "maps, programs and the guardian need descriptors; more probes need no more",
        unit="",
        is_plotted=False,
    ),
)
_TOOL_FIGURES: Final = (
    Figure(
        TOOLS,
        "all",
        "A bcc tool, all armed",
        "From exec of Debian's funccount to the last probe armed, without batchprobe and through "
        "`batchprobe run`. Most of it is bcc's compiler. Only then the tool prints its first line.",
        "the imports of batchprobe, and the kernel's symbols",
        is_plotted=False,
    ),
    Figure(
        TOOLS,
        "exit",
        "A bcc tool, Ctrl-C",
        "From Ctrl-C to the end of the same two.",
        "the barrier",
        is_plotted=False,
    ),
)
_HIT_REASON: Final = (
    "a hit finds its slot, tests its gate and counts in its CPU's cell; a counter that is looked "
    "up by a constant is less work"
)


def write(results: Results, docs: Path) -> None:
    """Write the page and its plots."""
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*_head(results), *_promises(results), *_behind(results)]
    for figure in (*_FIGURES, *_TOOL_FIGURES):
        lines += _section(results, figure, folder)
    lines += [*_phases(results), *_hits(results), *_left_out(results)]
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")


def _kernels(results: Results, kind: str | None = None) -> list[str]:
    return sorted({key.kernel for key in results if kind in (None, key.kind)})


def _head(results: Results) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Written by `scripts/bench`: do not edit."
    yield ""
    machines = sorted(
        {
            f"{m['cpu']}, {m['cpus']} CPUs, QEMU {m['qemu']}"
            for m in (result.machine for result in results.values())
        }
    )
    yield f"- Machine: {'; '.join(machines) or 'none'}"
    for kernel in _kernels(results):
        versions = [r.versions for key, r in results.items() if key.kernel == kernel][-1]
        grace = [r.grace for key, r in results.items() if key.kernel == kernel]
        commits = {r.commit or "older" for key, r in results.items() if key.kernel == kernel}
        yield (
            f"- {kernel}: Linux {versions['release']}, {versions['cpus']} CPUs "
            f"({versions['cpu']}), bcc {versions['bcc']}, bpftrace {versions['bpftrace']}, "
            f"Python {versions['python']}, batchprobe {' and '.join(sorted(commits))}; "
            f"a grace period takes {_number(statistics.median(grace))} s"
        )
    busy = sum(result.busy > _BUSY for result in results.values())
    if busy:
        yield (
            f"- **{busy} of {len(results)} measurements were made beside other work on the "
            "machine.**"
        )
    yield ""
    yield (
        "Under QEMU's emulation everything is about ten times slower than on hardware: compare "
        "ratios, not seconds. The tools take turns within one boot, on the same functions; a cell "
        "shows the median of all rounds, and the range if there were several."
    )
    yield ""


def _promises(results: Results) -> Iterator[str]:
    yield "## The targets"
    yield ""
    yield "| kernel | what | measured | wanted | |"
    yield "|---|---|---|---|---|"
    missed = []
    for ratio in targets.check(results, _kernels(results)):
        if ratio.verdict is Verdict.MISSED and ratio.reason:
            missed.append(f"- {ratio.kernel}, {ratio.text}: {ratio.reason}.")
        sign = "at least" if ratio.is_least else "at most"
        verdict = "**missed**" if ratio.verdict is Verdict.MISSED else ratio.verdict.value
        measured = _line(ratio.measured("" if ratio.value is None else _number(ratio.value)))
        yield (
            f"| {ratio.kernel} | {ratio.text} | {measured} | {sign} {ratio.wanted:g} | {verdict} |"
        )
    yield ""
    if missed:
        yield from (*missed, "")


def _behind(results: Results) -> Iterator[str]:
    """A line for each figure in which another tool leads."""
    yield "## Where batchprobe does not lead"
    yield ""
    found = False
    for figure in (*_FIGURES, *_TOOL_FIGURES):
        for kernel in _kernels(results, figure.kind):
            behind = []
            for result in _of(results, kernel, figure.kind):
                theirs = _best(result, figure.value, lambda tool: not _is_ours(tool))
                ours = _best(result, figure.value, _is_ours)
                if ours and theirs and theirs[1] < ours[1]:
                    behind.append(
                        f"{_size(result)} {_number(ours[1])} against {theirs[0]}'s "
                        f"{_number(theirs[1])} {figure.unit}".rstrip()
                    )
            if behind:
                found = True
                yield f"- {figure.title} on {kernel}: {'; '.join(behind)}. Why: {figure.reason}."
    for kernel in _kernels(results, HIT):
        for result in _of(results, kernel, HIT):
            theirs = _best(result, "cost", lambda tool: not _is_ours(tool))
            ours = _best(result, "cost", _is_ours)
            if ours and theirs and theirs[1] < ours[1]:
                found = True
                yield (
                    f"- Cost of a hit on {kernel}, {_cpus(result)}: {ours[0]} {_number(ours[1])} "
                    f"ns, {theirs[0]} {_number(theirs[1])} ns. Why: {_HIT_REASON}."
                )
    if not found:
        yield "Nowhere, in what was measured."
    yield ""


def _best(result: Result, value: str, wanted: Callable[[str], bool]) -> tuple[str, float] | None:
    medians = [
        (median, tool)
        for tool in result.samples
        if tool not in _FLOORS
        and wanted(tool)
        and (median := result.median(tool, value)) is not None
    ]
    if not medians:
        return None
    median, tool = min(medians)
    return tool, median


def _is_ours(tool: str) -> bool:
    return tool.startswith(BATCHPROBE) or tool in (BATCHED, OWN)


def _of(results: Results, kernel: str, kind: str) -> list[Result]:
    return [r for key, r in sorted(results.items()) if (key.kernel, key.kind) == (kernel, kind)]


def _section(results: Results, figure: Figure, folder: Path) -> Iterator[str]:
    kernels = _kernels(results, figure.kind)
    if not kernels:
        return
    unit = f", {figure.unit}" if figure.unit else ""
    yield f"## {figure.title}"
    yield ""
    yield figure.says
    yield ""
    file = folder / f"{figure.kind}-{figure.value}.svg"
    title = f"{figure.title}{unit}"
    if figure.is_plotted and plots.draw(results, figure.kind, figure.value, title, file):
        yield f"![{figure.title} against the number of functions]({folder.name}/{file.name})"
        yield ""
    for kernel in kernels:
        mine = _of(results, kernel, figure.kind)
        tools = _tools(mine, figure.value)
        if tools:
            yield f"{kernel}{unit}:"
            yield ""
            yield from _table(mine, tools, figure.value)
            yield ""


def _tools(results: Sequence[Result], value: str) -> list[str]:
    order = [BATCHPROBE, *(f"{BATCHPROBE} {abi}" for abi in ("multi", "event", "perf"))]
    order += [FIRST_START, BATCHED, BCC, FUNCCOUNT, BPFTRACE, LINK, EVENT_FLOOR]
    return [t for t in order if any(result.median(t, value) is not None for result in results)]


def _table(results: Sequence[Result], tools: Sequence[str], value: str) -> Iterator[str]:
    yield f"| functions | {' | '.join(tools)} |"
    yield "|---" * (len(tools) + 1) + "|"
    for result in results:
        cells = [_cell(result.values(tool, value)) for tool in tools]
        yield f"| {result.functions:,} (`{result.glob}`) | {' | '.join(cells)} |"


def _phases(results: Results) -> Iterator[str]:
    yield "## The phases of a commit"
    yield ""
    yield (
        "Close the gates (no new hit is recorded), make counts final (the barrier), reclaim kernel "
        "objects. The last column is the time from the request to final counts, in ordinary grace "
        "periods."
    )
    yield ""
    yield "| kernel | functions | ABI | gates, ms | final, ms | reclaim, ms | grace periods |"
    yield "|---|---|---|---|---|---|---|"
    for kernel in _kernels(results, CALLS):
        for result in _of(results, kernel, CALLS):
            for tool in filter(_is_ours, _tools([result], "final")):
                cells = [
                    _cell([v * 1e3 for v in result.values(tool, name)])
                    for name in ("top", "final", "reclaim")
                ]
                final, grace = result.median(tool, "final"), result.median(tool, "grace")
                periods = _number(final / grace) if final and grace else ""
                yield (
                    f"| {kernel} | {result.functions:,} | {tool.removeprefix(BATCHPROBE).strip()} "
                    f"| {' | '.join(cells)} | {periods} |"
                )
    yield ""


def _hits(results: Results) -> Iterator[str]:
    kernels = _kernels(results, HIT)
    if not kernels:
        return
    yield "## Cost of a hit"
    yield ""
    yield (
        "Nanoseconds that a probe adds to a call of getppid(2), in a loop of one process per CPU; "
        "each round takes the fastest of several batches. The loop without a probe is the base. "
        "The link floor is a program that does nothing; `own program` is bcc's program behind "
        "batchprobe's gate. Where one thread emulates all CPUs, two "
        "CPUs show no contention for memory."
    )
    yield ""
    yield "| kernel | tool | 1 CPU | jump-optimized | 2 CPUs |"
    yield "|---|---|---|---|---|"
    for kernel in kernels:
        by_cpus = {result.key.count: result for result in _of(results, kernel, HIT)}
        first = next(iter(by_cpus.values()))
        base = [_cell(_all(by_cpus.get(cpus), "base")) for cpus in (1, 2)]
        yield f"| {kernel} | no probe (base) | {base[0]} | | {base[1]} |"
        for tool in first.samples:
            cells = [
                _cell(by_cpus[cpus].values(tool, "cost")) if cpus in by_cpus else ""
                for cpus in (1, 2)
            ]
            optimized = "yes" if first.median(tool, "optimized") else "no"
            yield f"| {kernel} | {tool} | {cells[0]} | {optimized} | {cells[1]} |"
    yield ""


def _all(result: Result | None, value: str) -> list[float]:
    """The values of all tools."""
    return [v for tool in result.samples for v in result.values(tool, value)] if result else []


def _left_out(results: Results) -> Iterator[str]:
    rows = [
        f"| {key.kernel} | {Job(key.kind, key.count, (), 0, 0.0).name} | {tool} | {_line(why)} |"
        for key, result in sorted(results.items())
        for tool, why in result.left_out.items()
    ]
    if rows:
        yield from ("## Left out", "", "| kernel | measurement | tool | why |")
        yield from ("|---|---|---|---|", *rows, "")


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:200]


def _size(result: Result) -> str:
    return f"{result.functions:,} function{'s' if result.functions > 1 else ''}"


def _cpus(result: Result) -> str:
    return f"{result.key.count} CPU{'s' if result.key.count > 1 else ''}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    median = statistics.median(ordered)
    if len(values) == 1 or ordered[0] == ordered[-1]:
        return _number(median)
    return f"{_number(median)} ({_number(ordered[0])} to {_number(ordered[-1])})"


def _number(value: float) -> str:
    """Three significant digits."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")
