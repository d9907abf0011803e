# SPDX-License-Identifier: Apache-2.0
"""Whether a tool does with batchprobe what it does without."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Self

from batchprobe._util.counted import counted

__all__ = ["Run", "Verdict", "judge", "probes"]

_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{12,}\b|\d+(\.\d+)?")
_SUMMARY = "batchprobe: "
# Statuses of a tool that ended, by itself or at Ctrl-C.
_ENDED = (0, 130, -2)
# The frame of bcc that compiles.
_COMPILES = "bpf_module_create_c_from_string"
_INTERRUPTED = "KeyboardInterrupt"
# Kinds of lines that every run has.
_HEADER = 1
_WORKLOAD = ("btwork", "btfile", "btmount")


class Verdict(Enum):
    """What was found; the value is shown."""

    EQUAL = "works, equal"
    WORKS = "works"
    NOTHING = "nothing to batch"
    BROKEN = "broken without us too"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Run:
    """One run of a tool."""

    status: int | None
    """None if it had to be killed."""
    output: str
    errors: str
    ready_seconds: float
    exit_seconds: float | None
    """From SIGINT to the end; None if the tool ended by itself."""

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """From a record of a result file."""
        return cls(**record)

    def to_json(self) -> dict[str, Any]:
        """As `of` takes it."""
        return asdict(self)

    @property
    def summary(self) -> str:
        """The line that batchprobe printed; empty if there is none."""
        lines = [line for line in self.errors.splitlines() if line.startswith(_SUMMARY)]
        return lines[-1].removeprefix(_SUMMARY) if lines else ""

    @property
    def failure(self) -> str:
        """Why it did not work; empty if it did."""
        complaints = [
            line.strip()
            for line in self.errors.splitlines()
            if line.strip() and not line.startswith(_SUMMARY)
        ]
        said = [line.strip() for line in self.output.splitlines() if line.strip()] + complaints
        if self.status is None:
            return "does not end"
        if said and said[-1] == _INTERRUPTED:
            # Some tools do not catch Ctrl-C.
            return "still compiled when it was interrupted" if _COMPILES in self.errors else ""
        if "Traceback" in self.errors or "Failed to" in self.output + self.errors:
            errors = [
                line for line in said if re.search(r"\w(Error|Exception|error)\b|Failed to", line)
            ]
            return (errors or said)[-1]
        # trace ends with 1 at Ctrl-C, having printed everything.
        if self.status not in _ENDED and (complaints or not said):
            return said[-1] if said else f"status {self.status}"
        return ""


def probes(run: Run) -> int:
    """The number of probes that were batched."""
    found = re.match(r"(\d+) probe", run.summary)
    return int(found[1]) if found else 0


def judge(plain: Run, batched: Run, exact: str = "") -> tuple[Verdict, str]:
    """The verdict, and what it rests on. `exact` is a regex of lines that must be equal."""
    if why := plain.failure:
        return Verdict.BROKEN, f"{why}{_besides(why, batched.failure)}"
    if why := batched.failure:
        return Verdict.DIFFERS, why
    if plain.status != batched.status:
        return Verdict.DIFFERS, f"status {plain.status} without us, {batched.status} with us"
    if not probes(batched):
        return Verdict.NOTHING, batched.summary.partition("; ")[2]
    return _same_lines(plain, batched, exact) if exact else _same_shapes(plain, batched)


def _besides(plain: str, batched: str) -> str:
    """What is to be said where both did not fail in the same way."""
    if not batched:
        return " (batched, it works)"
    return "" if _shapes(plain) == _shapes(batched) else f" (batched: {batched})"


def _same_lines(plain: Run, batched: Run, pattern: str) -> tuple[Verdict, str]:
    first, second = (_matching(run.output, pattern) for run in (plain, batched))
    if not first and not second:
        return Verdict.WORKS, "the workload caused none of the lines to compare"
    if first == second:
        return Verdict.EQUAL, f"{counted(len(first), 'line')}, numbers included"
    return Verdict.DIFFERS, f"{_first(first)} without us, {_first(second)} with us"


def _same_shapes(plain: Run, batched: Run) -> tuple[Verdict, str]:
    first, second = (_shapes(run.output, _WORKLOAD) for run in (plain, batched))
    if first and first == second:
        return Verdict.EQUAL, f"{_kinds(len(first))} about the workload"
    if first and not second:
        return Verdict.DIFFERS, f"{_first(first)} without us, no line about the workload with us"
    first, second = (_shapes(run.output) for run in (plain, batched))
    common = len(set(first) & set(second))
    if common < _HEADER < len(first) or len(second) <= _HEADER < len(first):
        return Verdict.DIFFERS, f"{_kinds(len(first))} without us, {_first(second)} with us"
    said = f"{_kinds(common)} in common" if common > _HEADER else "no line to compare"
    return Verdict.WORKS, said


def _kinds(count: int) -> str:
    return counted(count, "kind of line", "kinds of lines")


def _first(lines: Sequence[str]) -> str:
    return repr(lines[0]) if lines else "nothing"


def _matching(output: str, pattern: str) -> list[str]:
    return sorted(
        " ".join(line.split()) for line in output.splitlines() if re.search(pattern, line)
    )


def _shapes(output: str, words: Iterable[str] = ()) -> list[str]:
    """The lines with these words, if any, without their numbers; each once."""
    wanted = [
        line for line in output.splitlines() if not words or any(word in line for word in words)
    ]
    return sorted({" ".join(_NUMBER.sub("#", line).split()) for line in wanted if line.strip()})
