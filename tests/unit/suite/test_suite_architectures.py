# SPDX-License-Identifier: Apache-2.0
"""The table of docs/architectures.md, from records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _suite import architectures
from _suite.main import PAGE
from _vm.arch import ARCHES


def record(machine: str, **places: Any) -> dict[str, Any]:
    return {
        "machine": machine,
        "kernel": "6.1",
        "places": {
            "event entry": [0, 1],
            "event after": [5, None],
            "event return": "EINVAL",
            "perf entry": [0, 1],
            **places,
        },
        "teardown": {
            "tool": "bcc",
            "other": [200, 5.0, 16.94],
            "batchprobe": [199, 1.0, 0.126],
            "barrier": 0.007,
            "grace": 0.0164,
            "ratio": 128.4,
            "abi": "event",
        },
    }


def test_a_row() -> None:
    row = architectures.table([record("i686")]).splitlines()[2]
    assert row == (
        "| i386 | 6.1 | **event**, perf | +0 (+1) | +5 | refused | 7 ms (16 ms) "
        "| 199 in 0.13 s | 200 by bcc in 16.9 s | 128 |"
    )


def test_an_unknown_function_and_an_abi_that_does_not_work() -> None:
    row = architectures.table(
        [record("armv7l", **{"event after": "f begins in an unknown way", "perf entry": "EINVAL"})]
    )
    assert "| armhf | 6.1 | **event** | +0 (+1) | not known | refused |" in row


def test_rows_are_in_the_order_of_the_architectures() -> None:
    machines = [arch.machine for arch in ARCHES.values()]
    rows = architectures.table(map(record, sorted(machines))).splitlines()[2:]
    names = [row.split()[1] for row in rows]
    assert sorted(names) == sorted(ARCHES)
    assert names[0] == "x86_64"
    assert names[-1] == "riscv64"


def test_incomplete_records_are_left_out(tmp_path: Path) -> None:
    whole, part = record("x86_64"), record("s390x")
    del part["teardown"]
    for name, content in (("a", whole), ("b", part)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert architectures.read(tmp_path) == [whole]
    assert architectures.table([]) == ""
    assert architectures.read(tmp_path / "none") == []


def test_the_text_around_the_table_stays() -> None:
    page = f"before\n{architectures.BEGIN}old\n{architectures.END}after\n"
    new = architectures.inserted(page, "| new |")
    assert new == f"before\n{architectures.BEGIN}\n| new |\n\n{architectures.END}after\n"
    assert architectures.inserted(new, "| new |") == new
    with pytest.raises(ValueError, match="no place"):
        architectures.inserted("no marks", "| new |")


def test_the_page_has_a_place_for_it() -> None:
    assert "| new |" in architectures.inserted(PAGE.read_text(), "| new |")
