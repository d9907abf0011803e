# SPDX-License-Identifier: Apache-2.0
"""docs/bcc-tools.md, from the records of the guests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from _bcctools.compare import Run, Verdict, judge, probes
from _bcctools.tools import TOOLS, Tool

__all__ = ["Results", "page"]

_HEAD = """# bcc's tools through the commit

Written by `scripts/bcc-tools`. Each tool of Debian's package bpfcc-tools that uses kprobes is run
twice in the same boot, under the same workload: as it is, and by `batchprobe run`. The kernels are
Debian's, in QEMU under software emulation with 2 CPUs: trust the ratios, not the seconds.

- **works, equal**: the lines about the workload are the same, numbers aside; for tools that count
  or print arguments of functions that only the workload calls, numbers included.
- **works**: both print the same kinds of lines, or neither had anything to print.
- **nothing to batch**: on this kernel the tool uses no kprobe (but tracepoints or fentry).
- **broken without us too**: it fails or does not end without batchprobe. Its last words are quoted.
- **differs**: with the reason.

`exit` is the time from Ctrl-C to the end of the process, in seconds.
"""


@dataclass
class Results:
    """What one guest reported."""

    guest: str
    facts: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def arguments(self, tool: str) -> list[str] | None:
        """What the tool was run with; None if it was not."""
        return list(self.records[tool]["arguments"]) if tool in self.records else None


def page(found: Sequence[Results]) -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for results in found for line in _section(results))])


def _section(results: Results) -> Iterator[str]:
    kernel, _, suite = results.guest.partition("/")
    userspace = f", with {suite}'s user space" if suite else ""
    facts = results.facts
    yield f"## {kernel}{userspace}: Linux {facts['kernel']}, bcc {facts['bcc']}"
    yield ""
    rows = [(tool, *_outcome(results, tool)) for tool in TOOLS if tool.name in results.records]
    counts = Counter(verdict for _, verdict, *_ in rows)
    yield ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict) + "."
    yield ""
    yield "| tool | verdict | seen | probes | exit, without | with |"
    yield "|---|---|---|---|---|---|"
    for tool, verdict, why, plain, batched in rows:
        cells = (
            f"`{_escaped(' '.join((tool.name, *(results.arguments(tool.name) or ()))))}`",
            verdict.value,
            _escaped(why),
            str(probes(batched) or ""),
            _seconds(plain),
            _seconds(batched),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    if missing := [f"`{tool.name}`" for tool in TOOLS if tool.name not in results.records]:
        yield f"Not run: {', '.join(missing)}."
        yield ""


def _outcome(results: Results, tool: Tool) -> tuple[Verdict, str, Run, Run]:
    record = results.records[tool.name]
    plain, batched = Run.of(record["plain"]), Run.of(record["batched"])
    return *judge(plain, batched, tool.exact), plain, batched


def _seconds(run: Run) -> str:
    # The end of a tool that failed says nothing.
    return "" if run.exit_seconds is None or run.failure else f"{run.exit_seconds:.2f}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
