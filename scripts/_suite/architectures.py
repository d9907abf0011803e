# SPDX-License-Identifier: Apache-2.0
"""The table of docs/architectures.md, from what `scripts/test arch` recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _vm.arch import ARCHES

Record = Mapping[str, Any]
"""What the tests recorded of one kernel: tests/kernel/helpers/figures.py."""

# The table stands between these; the text around it is written by hand.
BEGIN = "<!-- scripts/test arch -->\n"
END = "<!-- end -->\n"

_NAMES = {arch.machine: name for name, arch in ARCHES.items()}
# The order of the rows.
_ORDER = ("x86_64", "i386", "arm64", "armhf", "ppc64el", "s390x", "riscv64")
_TITLES = (
    "architecture",
    "kernel",
    "probe ABIs",
    "entry",
    "after",
    "return",
    "barrier (grace period)",
    "teardown: batchprobe",
    "one by one",
    "times faster",
)


def read(folder: Path) -> list[Record]:
    """The complete records of a folder: a test that failed leaves its part out."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return [record for record in found if {"places", "teardown"} <= record.keys()]


def table(records: Iterable[Record]) -> str:
    """The records as a Markdown table, empty if there are none."""
    ordered = sorted(records, key=lambda r: (_ORDER.index(_NAMES[r["machine"]]), r["kernel"]))
    if not ordered:
        return ""
    head = [_row(_TITLES), "|---" * len(_TITLES) + "|"]
    return "\n".join([*head, *(_row(_cells(record)) for record in ordered)])


def inserted(page: str, text: str) -> str:
    """The page with the table in its place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the table: {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{BEGIN}\n{text}\n\n{END}{after}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(record: Record) -> Sequence[str]:
    places, teardown = record["places"], record["teardown"]
    count, _, own = teardown["batchprobe"]
    others, _, other = teardown["other"]
    return (
        _NAMES[record["machine"]],
        record["kernel"],
        _abis(places, teardown["abi"]),
        *(_place(places[f"event {place}"]) for place in ("entry", "after", "return")),
        f"{teardown['barrier'] * 1000:.0f} ms ({teardown['grace'] * 1000:.0f} ms)",
        f"{count} in {own:.2f} s",
        f"{others} by {teardown['tool']} in {other:.1f} s",
        f"{teardown['ratio']:.0f}",
    )


def _abis(places: Mapping[str, Any], chosen: str) -> str:
    """The ABIs that work, with the chosen ones in bold."""
    works = dict.fromkeys(kind.split()[0] for kind in places if not isinstance(places[kind], str))
    return ", ".join(f"**{abi}**" if abi in chosen.split("+") else abi for abi in works)


def _place(found: str | list[int | None]) -> str:
    """An offset and what the probe reports for it, or that there is none."""
    if isinstance(found, str):
        return "not known" if "unknown way" in found else "refused"
    offset, reported = found
    return f"+{offset}" if reported is None else f"+{offset} ({reported:+d})"
