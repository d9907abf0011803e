# SPDX-License-Identifier: Apache-2.0
"""Sinks: JSON lines, tables, and the summary on stderr."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from batchprobe.actions import Count
from batchprobe.commit.queue import CommitReport, RemovalFailure
from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.functions.targets import Reason, Skipped, Target
from batchprobe.output.base import Summary
from batchprobe.output.json_lines import JsonSink
from batchprobe.output.stderr import say_not_removed, say_skipped
from batchprobe.output.text import TextSink
from batchprobe.probe import Probe

HITS = {"vfs_read": 7, "vfs_write": 1_000_000, "never": 0, "[odd] name": 7}
ENTRY = ProbeSpec("*", Source("a list", 1), Kind.GLOB, "*")
SKIPPED = [Skipped("nosuch", Source("a list", 3), Reason.UNKNOWN, "there is such")]


def of_probes(hits: Mapping[str, int]) -> dict[Probe, int]:
    """The same counts by probe instead of label."""
    return {Probe(Target(label, ENTRY, None)): count for label, count in hits.items()}


def summary() -> Summary:
    made = Summary(
        abi="event+perf",
        placement="after",
        skipped=SKIPPED,
        omitted={Reason.NOTRACE: 2},
        hits=of_probes(HITS),
        values=of_probes(HITS),
        missed=None,
        attach_seconds=1.25,
        commit=CommitReport(
            probes=4,
            clean=1,
            dirty=3,
            barriers=1,
            top_seconds=0.5,
            failed=(RemovalFailure("an event", 16),),
        ),
        barrier_note="rcu_normal is set",
    )
    made.kernel, made.arch = "6.1.0", "x86_64"
    return made


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines() -> None:
    out = io.StringIO()
    sink = JsonSink(out, Count())
    sink.interval(0.12345, of_probes(HITS), of_probes({"vfs_read": 2}))
    sink.final(of_probes(HITS))
    sink.end(summary())
    counts, final, end = lines(out)
    assert counts == {"type": "counts", "schema": 1, "seconds": 0.123, "hits": {"vfs_read": 2}}
    assert final == {"type": "final", "schema": 1, "hits": HITS}
    assert end == {
        "type": "summary",
        "schema": 1,
        "kernel": "6.1.0",
        "arch": "x86_64",
        "abi": "event+perf",
        "placement": "after",
        "requested": 5,
        "attached": 4,
        "skipped": [
            {
                "entry": "nosuch",
                "file": "a list",
                "line": 3,
                "reason": "unknown function: there is such",
            }
        ],
        "left_out": {"not traceable": 2},
        "pending": [],
        "hits": HITS,
        "missed": None,
        "attach_seconds": 1.25,
        "commit": {
            "probes": 4,
            "clean": 1,
            "dirty": 3,
            "barriers": 1,
            "top_seconds": 0.5,
            "barrier_seconds": 0.0,
            "reclaim_seconds": 0.0,
            "handed_over": 0,
            "left": 1,
            "left_behind": ["an event"],
        },
    }


def test_summary_of_nothing() -> None:
    out = io.StringIO()
    JsonSink(out, Count()).end(Summary())
    (end,) = lines(out)
    assert (end["requested"], end["attached"], end["skipped"]) == (0, 0, [])
    assert (end["commit"]["barriers"], end["commit"]["left"]) == (0, 0)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (None, ["1000000 vfs_write", "7 [odd] name", "7 vfs_read"]),
        (2, ["1000000 vfs_write", "7 [odd] name", "… 1 more"]),
        (3, ["1000000 vfs_write", "7 [odd] name", "7 vfs_read"]),
    ],
)
def test_tables_show_the_most_hit_first(top: int | None, expected: list[str]) -> None:
    out = io.StringIO()
    TextSink(out, Count(), top=top).final(of_probes(HITS))
    title, *rows = [" ".join(line.split()) for line in out.getvalue().splitlines() if line]
    assert title == "HITS FUNCTION"
    assert rows == expected
    assert "\x1b" not in out.getvalue()


def test_columns_line_up() -> None:
    out = io.StringIO()
    TextSink(out, Count()).table(of_probes(HITS))
    title, *rows = out.getvalue().rstrip("\n").split("\n")
    at = title.index("FUNCTION")
    assert [row[at:] for row in rows] == ["vfs_write", "[odd] name", "vfs_read"]


def test_an_empty_table_has_its_title() -> None:
    out = io.StringIO()
    TextSink(out, Count(), top=5).table(of_probes({"never": 0}))
    assert out.getvalue() == "HITS  FUNCTION\n\n"


def test_the_summary_is_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    TextSink(out, Count()).end(summary())
    assert out.getvalue() == ""
    said = capfd.readouterr().err
    assert all(line.startswith("batchprobe: ") for line in said.splitlines())
    for words in (
        "4 probes (event+perf, after)",
        "1 skipped; patterns left out 2 not traceable",
        "1000014 hits, 1 function never called, missed: unknown (the kernel does not count them",
        "4 probes off with 1 barrier: counting stopped in 500.0 ms",
        "grace periods were not expedited: rcu_normal is set",
    ):
        assert words in said


def test_a_failed_removal_is_reported_with_what_happens_to_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    say_not_removed([])
    assert capfd.readouterr().err == ""
    say_not_removed(summary().commit.failed)
    said = capfd.readouterr().err
    assert "error: not removed: an event" in said
    assert "batchprobe cleanup" in said


def test_numbers_agree_with_their_nouns(capfd: pytest.CaptureFixture[str]) -> None:
    hits = of_probes({"vfs_read": 1})
    one = Summary(hits=hits, missed=0, commit=CommitReport(probes=1, dirty=1, barriers=1))
    TextSink(io.StringIO(), Count()).end(one)
    first, second, third = capfd.readouterr().err.splitlines()
    assert first.startswith("batchprobe: 1 probe (")
    end = "missed: 0, lost: 0, not attached: 0"
    assert second == f"batchprobe: 1 hit, 0 functions never called, {end}"
    assert third.startswith("batchprobe: 1 probe off with 1 barrier: ")


def test_missed_hits_are_explained(capfd: pytest.CaptureFixture[str]) -> None:
    TextSink(io.StringIO(), Count()).end(Summary(hits=of_probes(HITS), missed=12))
    assert "missed: 12 (hits while their CPU was in another probe" in capfd.readouterr().err


def test_where_nothing_was_attached_only_the_reason_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    TextSink(io.StringIO(), Count()).end(Summary(skipped=SKIPPED))
    assert capfd.readouterr().err == ""


def skips(*reasons: Reason) -> list[Skipped]:
    return [Skipped(f"f{n}", Source("list", n), why, "") for n, why in enumerate(reasons, 1)]


def test_a_few_skips_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    few = skips(Reason.UNKNOWN, Reason.EXCLUDED, Reason.UNKNOWN)
    say_skipped(few)
    assert capfd.readouterr().err.splitlines() == [f"batchprobe: skipped {skip}" for skip in few]


def test_many_skips_are_summed_up(capfd: pytest.CaptureFixture[str]) -> None:
    many = skips(*(Reason.EXCLUDED, Reason.UNKNOWN) * 15)
    say_skipped(many)
    assert capfd.readouterr().err.splitlines() == [
        "batchprobe: skipped 30: 15 excluded, 15 unknown function; for example",
        f"batchprobe:   {many[0]}",
        f"batchprobe:   {many[2]}",
        f"batchprobe:   {many[1]}",
        f"batchprobe:   {many[3]}",
        "batchprobe:   … 26 more: `batchprobe functions LIST` or --json lists all",
    ]
    say_skipped(many, most=None)
    assert len(capfd.readouterr().err.splitlines()) == 30


def test_skips_for_many_reasons_are_few_lines(capfd: pytest.CaptureFixture[str]) -> None:
    say_skipped(skips(*Reason, *Reason, *Reason))
    printed = capfd.readouterr().err.splitlines()
    assert len(printed) == len(Reason) + 2
    # What only an attach finds is not listed by `functions`.
    assert printed[-1].endswith(f"… {2 * len(Reason)} more: --json lists all")


def test_a_skip_names_the_function_that_its_entry_does_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    skip = Skipped("tcp_*", Source("list", 1), Reason.REFUSED, "EINVAL", "tcp_push@0xffff8000")
    say_skipped([skip])
    assert capfd.readouterr().err == (
        "batchprobe: skipped list:1: tcp_*: tcp_push@0xffff8000: refused by the kernel: EINVAL\n"
    )
    out = io.StringIO()
    JsonSink(out, Count()).end(Summary(skipped=[skip]))
    (found,) = lines(out)[0]["skipped"]
    assert (found["entry"], found["function"]) == ("tcp_*", "tcp_push@0xffff8000")
