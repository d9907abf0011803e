# SPDX-License-Identifier: Apache-2.0
"""scripts/bcc-tools: what two runs of a tool say, and the page, from runs on Debian 12."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from _bcctools.compare import Run, Verdict, judge, probes
from _bcctools.page import Results, page
from _bcctools.tools import TOOLS
from recorded import recorded

FACTS, *RECORDS = map(json.loads, recorded("debian-12", "bcc-tools.ndjson").splitlines())
RUNS = {r["tool"]: (Run.of(r["plain"]), Run.of(r["batched"])) for r in RECORDS}
EXACT = {tool.name: tool.exact for tool in TOOLS}


@pytest.mark.parametrize(
    ("tool", "verdict", "why"),
    [
        ("argdist", Verdict.EQUAL, "numbers included"),
        ("funccount", Verdict.EQUAL, "numbers included"),
        ("funcslower", Verdict.EQUAL, "about the workload"),
        ("biosnoop", Verdict.BROKEN, "blk_account_io_start"),
    ],
)
def test_verdicts(tool: str, verdict: Verdict, why: str) -> None:
    found, reason = judge(*RUNS[tool], EXACT[tool])
    assert found is verdict, reason
    assert why in reason


def test_another_count_is_a_difference() -> None:
    plain, batched = RUNS["funccount"]
    assert probes(batched) == 2
    other = replace(batched, output=batched.output.replace(" 20", " 19"))
    assert other != batched
    assert judge(plain, other, EXACT["funccount"])[0] is Verdict.DIFFERS


def test_a_tool_that_only_works_without_us_differs() -> None:
    plain, batched = RUNS["funcslower"]
    for bad in (
        replace(batched, status=None),
        replace(batched, errors="Traceback (most recent call last):\nValueError: bad\n"),
        replace(batched, output=""),
    ):
        assert judge(plain, bad)[0] is Verdict.DIFFERS, bad


def test_a_tool_without_kprobes_has_nothing_to_batch() -> None:
    plain, batched = RUNS["funcslower"]
    idle = replace(batched, errors="batchprobe: nothing to batch\n")
    assert judge(plain, idle)[0] is Verdict.NOTHING


def test_the_page_has_a_row_for_each_tool_and_names_those_that_were_not_run() -> None:
    results = Results("debian-12", FACTS, {record["tool"]: record for record in RECORDS})
    text = page([results])
    assert f"Linux {FACTS['kernel']}, bcc {FACTS['bcc']}" in text
    for name in RUNS:
        assert f"| `{name}" in text
    assert "Not run: " in text
    assert "`xfsdist`" in text.partition("Not run: ")[2]
