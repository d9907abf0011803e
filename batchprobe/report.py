"""What the user reads: tables or JSON lines on the output, the story of the run on stderr."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TextIO

from batchprobe.commit import CommitReport, Left
from batchprobe.kernel.targets import Reason, Resolution, Skipped, Target

__all__ = [
    "SCHEMA",
    "JsonReport",
    "Report",
    "Summary",
    "TextReport",
    "forget_unwritten",
    "tell",
    "tell_left",
    "tell_skips",
]

SCHEMA = 1
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


class Report(Protocol):
    """Where the data of a run goes: counts while it runs, counts when they are final, the end."""

    def counts(self, seconds: float, hits: Mapping[str, int]) -> None:
        """Hits since the last call, `seconds` after the first probe counted."""
        ...

    def final(self, hits: Mapping[str, int]) -> None:
        """All hits: no counter changes any more."""
        ...

    def end(self, summary: Summary) -> None:
        """All is removed."""
        ...


class JsonReport:
    """One object a line, each with `type` and `schema`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def counts(self, seconds: float, hits: Mapping[str, int]) -> None:
        self._line("counts", {"seconds": round(seconds, 3), "hits": dict(hits)})

    def final(self, hits: Mapping[str, int]) -> None:
        self._line("final", {"hits": dict(hits)})

    def end(self, summary: Summary) -> None:
        commit = summary.commit._asdict()
        commit["left"] = len(summary.commit.left)
        commit["left_behind"] = [left.what for left in summary.commit.left]
        self._line(
            "summary",
            {
                "kernel": summary.kernel,
                "arch": summary.arch,
                "abi": summary.abi,
                "placement": summary.placement,
                "requested": len(summary.hits) + len(summary.skipped),
                "attached": len(summary.hits),
                "skipped": [_skipped_json(skip) for skip in summary.skipped],
                "left_out": _by_words(summary.left_out),
                "pending": list(summary.pending),
                "hits": dict(summary.hits),
                "missed": summary.missed,
                "attach_seconds": summary.attach_seconds,
                "commit": commit,
            },
        )

    def resolution(self, found: Resolution) -> None:
        """What `functions` found."""
        for target in found.targets:
            self._line("function", _target_json(target))
        for skip in found.skipped:
            self._line("skipped", _skipped_json(skip))
        self._line(
            "summary",
            {
                "functions": len(found.targets),
                "skipped": len(found.skipped),
                "left_out": _by_words(found.left_out),
            },
        )

    def record(self, kind: str, content: Mapping[str, object]) -> None:
        """Any other object."""
        self._line(kind, content)

    def _line(self, kind: str, content: Mapping[str, object]) -> None:
        record = {"type": kind, "schema": SCHEMA, **content}
        self._out.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._out.flush()


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
        f"{count} {words}" for words, count in _by_words(left_out).items()
    )


def _by_words(counts: Mapping[Reason, int]) -> dict[str, int]:
    return {reason.value: count for reason, count in counts.items()}


def _skipped_json(skip: Skipped) -> dict[str, object]:
    return {
        "entry": skip.entry,
        "file": skip.source.file,
        "line": skip.source.line,
        "reason": skip.message,
    }


def _target_json(target: Target) -> dict[str, object]:
    return {
        "label": target.label,
        "name": target.name,
        "module": target.module,
        "address": None if target.address is None else f"{target.address:#x}",
        "offset": target.offset,
        "return": target.is_return,
        "entry": target.spec.text,
        "file": target.spec.source.file,
        "line": target.spec.source.line,
    }
