"""The pure parts of scripts/bench: what is still to measure, ratios, what tools say, the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from _bench import plan, results, targets
from _bench.jobs import (
    BATCHPROBE,
    BCC,
    BPFTRACE,
    CALLS,
    COMMAND,
    EVERYTHING,
    FUNCCOUNT,
    NO_TIME,
    Job,
    pack,
    unpack,
)
from _bench.results import Key, Result

Samples = Mapping[str, list[dict[str, float]]]
EVENT = f"{BATCHPROBE} event"
MULTI = f"{BATCHPROBE} multi"


def line(kind: str, count: int, samples: Samples, **more: object) -> str:
    row = {
        "kernel": "debian-12",
        "kind": kind,
        "count": count,
        "functions": count,
        "glob": "x*",
        "grace": 0.016,
        "versions": {},
        "machine": {},
        "busy": 0.0,
        "samples": samples,
        "left_out": {},
        "complete": True,
        **more,
    }
    return json.dumps(row) + "\n"


def test_jobs_travel_as_text() -> None:
    jobs = [*plan.quick("debian-12"), *plan.full("debian-13", plan.KINDS, plan.COUNTS)]
    assert unpack(pack(jobs)) == jobs


def test_only_some_tools() -> None:
    jobs = plan.only(plan.quick("debian-12"), [BCC])
    assert {tool for job in jobs for tool in job.tools} == {BCC}
    assert all(job.kind == CALLS for job in jobs)


def test_the_last_result_counts_and_half_a_line_does_not() -> None:
    first = line(CALLS, 10, {BCC: [{"detach": 1.0}]})
    again = line(CALLS, 10, {BCC: [{"detach": 2.0}, {"detach": 4.0}]})
    found = results.parse([first, again, first[:-20]])
    assert found[Key("debian-12", CALLS, 10)].median(BCC, "detach") == 3.0
    assert found[Key("debian-12", CALLS, 10)].median(BCC, "nothing") is None


def test_what_time_cut_short_replaces_nothing_complete() -> None:
    whole = line(CALLS, 10, {BCC: [{"detach": 1.0}]})
    short = line(CALLS, 10, {}, left_out={BCC: NO_TIME}, complete=False)
    for lines in ([whole, short], [short, whole]):
        assert results.parse(lines)[Key("debian-12", CALLS, 10)].samples


@pytest.mark.parametrize(
    ("samples", "left_out", "lacking"),
    [
        ({BCC: [{}], BPFTRACE: [{}]}, {}, False),
        ({BCC: [{}]}, {BPFTRACE: "failed: no"}, False),
        ({BCC: [{}]}, {BPFTRACE: NO_TIME}, True),
        ({BCC: [{}]}, {}, True),
    ],
)
def test_what_is_lacking(samples: Samples, left_out: dict[str, str], lacking: bool) -> None:
    job = Job(CALLS, 10, (BCC, BPFTRACE), 1, 1.0)
    found = results.parse([line(CALLS, 10, samples, left_out=left_out)])
    assert results.is_lacking(job, "debian-12", found) is lacking
    assert results.is_lacking(job, "debian-13", found)


def ratios(*lines: str, kernel: str = "debian-12") -> dict[str, targets.Ratio]:
    found = results.parse(line.replace("debian-12", kernel) for line in lines)
    return {ratio.text: ratio for ratio in targets.check(found, [kernel])}


def test_what_was_not_measured_is_missed() -> None:
    assert not any(ratio.is_met for ratio in ratios().values())
    assert "not measured" in str(next(iter(ratios().values())))


def test_start_up() -> None:
    samples: Samples = {BATCHPROBE: [{"first": 1.0}], FUNCCOUNT: [{"first": 25.0}]}
    found = ratios(line(COMMAND, 1, {**samples, BPFTRACE: [{"first": 0.5}]}))
    assert found[f"from command to first probe armed, against {FUNCCOUNT}"].is_met
    bpftrace = found[f"from command to first probe armed, against {BPFTRACE}"]
    assert (bpftrace.value, bpftrace.is_met) == (0.5, False)


def test_fewer_probes_are_extrapolated_and_that_is_said() -> None:
    mine = {"detach": 0.5, "attach": 5.0, "attached": 1000}
    theirs = {"detach": 30.0, "attach": 6.0, "attached": 300}
    found = ratios(line(CALLS, 1000, {EVENT: [mine]}), line(CALLS, 300, {BCC: [theirs]}))
    ratio = found["1,000 probes removed, against bcc's calls (funccount's, too)"]
    assert ratio.value == pytest.approx(200)
    assert ratio.is_met
    assert "300 probes" in str(ratio)
    few = line(CALLS, 10, {BCC: [{**theirs, "attached": 10}]})
    assert not ratios(line(CALLS, 1000, {EVENT: [mine]}), few)[ratio.text].is_met
    real = {"detach": 100.0, "attach": 6.0, "attached": 1000}
    found = ratios(line(CALLS, 1000, {EVENT: [mine], BCC: [real]}))
    assert not found["1,000 probes removed, against bcc's calls (funccount's, too)"].note


def test_everything_where_there_are_links() -> None:
    command = {"exit": 4.0, "memory": 210.0, "fds": 18, "attached": 40_000}
    calls = {"final": 0.05, "grace": 0.016, "detach": 4.0, "attached": 40_000}
    found = ratios(
        line(COMMAND, 1, {BATCHPROBE: [{"fds": 17}]}),
        line(COMMAND, EVERYTHING, {BATCHPROBE: [command], BPFTRACE: [{**command, "exit": 5.0}]}),
        line(CALLS, EVERYTHING, {MULTI: [calls]}),
        kernel="debian-13",
    )
    assert found["all functions, from Ctrl-C to the command's end, against bpftrace"].is_met
    assert not found["all functions, peak memory"].is_met
    assert not found["all functions, counts final after"].is_met
    assert found["open files with all functions, more than with 1"].is_met
    found = ratios(line(CALLS, EVERYTHING, {MULTI: [{**calls, "final": 0.04}]}), kernel="debian-13")
    assert found["all functions, counts final after"].is_met


def test_the_page_says_where_we_do_not_lead(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from _bench import page  # noqa: PLC0415

    samples: Samples = {
        BATCHPROBE: [{"first": 2.0, "exit": 1.0, "attached": 10}],
        BPFTRACE: [{"first": 1.0, "exit": 3.0, "attached": 10}],
    }
    facts = {"cpu": "c", "cpus": "2", "qemu": "7", "release": "6.1"}
    versions = {**facts, "bcc": "0.26", "bpftrace": "v0.17", "python": "3.11"}
    more = {"machine": facts, "versions": versions, "busy": 2.0}
    text = line(COMMAND, 10, samples, **more, commit="3f170c3")
    page.write(results.parse([text]), tmp_path)
    said = (tmp_path / "benchmarks.md").read_text()
    behind = said.partition("does not lead")[2].partition("##")[0]
    assert "Start-up on debian-12: 10 functions 2 against bpftrace's 1 s" in behind
    assert "Ctrl-C" not in behind
    assert "Python 3.11, batchprobe 3f170c3; a grace" in said
    assert "1 of 1 measurements were made beside other work" in said
    assert (tmp_path / "benchmarks" / "command-first.svg").stat().st_size < 100_000


def test_a_result_without_a_tool_has_no_median() -> None:
    result = Result(Key("k", CALLS, 1), 1, "x", 0.01, {}, {}, 0.0, {})
    assert result.median(BCC, "attach") is None
