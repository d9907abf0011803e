"""What the user reads: tables on the output, the story of the run on stderr."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from batchprobe.commit.queue import CommitReport

if TYPE_CHECKING:
    from batchprobe.commit.queue import Left
    from batchprobe.functions.targets import Reason, Resolution, Skipped

    class Report(Protocol):
        """Where the data of a run goes: counts while it runs, the final ones, the end."""

        def counts(self, seconds: float, hits: Mapping[str, int]) -> None:
            """Hits since the last call, `seconds` after the first probe counted."""
            ...

        def final(self, hits: Mapping[str, int]) -> None:
            """All hits: no counter changes any more."""
            ...

        def end(self, summary: Summary) -> None:
            """All is removed."""
            ...


__all__ = [
    "Summary",
    "TextReport",
    "by_words",
    "forget_unwritten",
    "tell",
    "tell_left",
    "tell_skips",
]

_MOST_SKIPS_TOLD = 20


class Summary(NamedTuple):
    """One run of `attach`, from its first line to its last probe's removal."""

    kernel: str = os.uname().release
    arch: str = os.uname().machine
    abi: str = ""
    placement: str = ""
    skipped: Sequence[Skipped] = ()
    left_out: Mapping[Reason, int] = {}
    hits: Mapping[str, int] = {}
    # Probes whose module was not loaded when they were attached.
    pending: Sequence[str] = ()
    missed: int | None = None
    attach_seconds: float = 0.0
    commit: CommitReport = CommitReport()
    barrier_note: str = ""


class TextReport:
    """Plain tables, most hits first; functions that were not called are only counted."""

    def __init__(self, out: TextIO, *, top: int | None) -> None:
        self._out = out
        self._top = top

    def counts(self, seconds: float, hits: Mapping[str, int]) -> None:
        self._out.write(f"after {seconds:.1f} s\n")
        self.table(hits)

    def final(self, hits: Mapping[str, int]) -> None:
        self.table(hits)

    def end(self, summary: Summary) -> None:
        for line in _story(summary):
            tell(line)

    def table(self, hits: Mapping[str, int]) -> None:
        """One block."""
        self._out.write("\n".join(_rows(hits, self._top)) + "\n\n")
        self._out.flush()

    def resolution(self, found: Resolution) -> None:
        """What `functions` found."""
        for target in found.targets:
            where = "when its module comes" if target.address is None else f"{target.address:#x}"
            self._out.write(f"{where:>18}  {target.label}\n")
        self._out.flush()
        tell_skips(found.skipped, most=None)
        out = _left_out(found.left_out)
        tell(f"{len(found.targets)} functions, {len(found.skipped)} skipped{out}")


def _rows(hits: Mapping[str, int], top: int | None) -> list[str]:
    called = sorted(((n, label) for label, n in hits.items() if n), key=lambda r: (-r[0], r[1]))
    shown = called[:top]
    width = max(len("HITS"), *(len(str(n)) for n, _ in shown)) if shown else len("HITS")
    rows = [f"{'HITS':>{width}}  FUNCTION", *(f"{n:>{width}}  {label}" for n, label in shown)]
    if len(called) > len(shown):
        rows.append(f"{'':>{width}}  … {len(called) - len(shown)} more")
    return rows


def tell(line: str) -> None:
    """One line on stderr."""
    try:
        os.write(2, f"batchprobe: {line}\n".encode(errors="replace"))
    except OSError:
        # Nobody listens; the exit status still speaks.
        return


def forget_unwritten(stream: TextIO) -> None:
    """Let what cannot be written go: the interpreter would try again at its exit, and say 120."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def tell_skips(skipped: Sequence[Skipped], most: int | None = _MOST_SKIPS_TOLD) -> None:
    """Each skip with its place and reason; past `most`, only how many more."""
    for skip in skipped[:most]:
        tell(f"skipped {skip}")
    if most is not None and len(skipped) > most:
        kinds = Counter(skip.reason for skip in skipped[most:])
        what = ", ".join(f"{count} {reason.value}" for reason, count in kinds.items())
        tell(f"… and {len(skipped) - most} more skipped ({what}): `batchprobe functions` names all")


def tell_left(left: Sequence[Left]) -> None:
    """Say on stderr what could not be removed, and what becomes of it."""
    for one in left:
        tell(f"error: left behind: {one.what}")
    if left:
        tell(
            "it counts nothing any more; a process in the background goes on trying to remove it "
            "for a minute, after that `batchprobe cleanup` does"
        )


def _story(summary: Summary) -> list[str]:
    commit = summary.commit
    missed = "unknown" if summary.missed is None else str(summary.missed)
    never = sum(1 for n in summary.hits.values() if not n)
    lines = [
        f"{len(summary.hits)} probes ({summary.abi}, {summary.placement}) in "
        f"{summary.attach_seconds:.2f} s, {len(summary.skipped)} skipped"
        f"{_left_out(summary.left_out)}",
        f"{sum(summary.hits.values())} hits, {never} functions never called, missed: {missed}",
        f"{commit.probes} probes off in one commit ({commit.clean} clean, {commit.dirty} dirty), "
        f"barriers: {commit.barriers}; gates {commit.top_seconds * 1e3:.1f} ms, "
        f"final after {commit.barrier_seconds * 1e3:.1f} ms, "
        f"reclaimed in {commit.reclaim_seconds:.2f} s",
    ]
    if summary.pending:
        lines.insert(1, f"waiting for their module: {', '.join(summary.pending)}")
    if summary.barrier_note:
        lines.append(f"grace periods were not expedited: {summary.barrier_note}")
    return lines


def _left_out(left_out: Mapping[Reason, int]) -> str:
    if not left_out:
        return ""
    return "; patterns left out " + ", ".join(
        f"{count} {words}" for words, count in by_words(left_out).items()
    )


def by_words(counts: Mapping[Reason, int]) -> dict[str, int]:
    """The same, by what people read."""
    return {reason.value: count for reason, count in counts.items()}
