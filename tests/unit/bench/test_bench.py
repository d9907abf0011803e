# SPDX-License-Identifier: Apache-2.0
"""The pure parts of scripts/bench: what is still to measure, ratios, what tools say, the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from _bench import plan, results, targets, wheel
from _bench.jobs import (
    BATCHED,
    BATCHPROBE,
    BCC,
    BPFTRACE,
    CALLS,
    COMMAND,
    EVERYTHING,
    FUNCCOUNT,
    HIT,
    NO_TIME,
    OWN,
    TOOLS,
    Job,
    pack,
    unpack,
)
from _bench.results import Key, Result
from _bench.targets import Verdict

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


def test_what_was_not_measured_is_not_missed() -> None:
    found = list(ratios().values())
    assert {ratio.verdict for ratio in found} == {Verdict.NOT_MEASURED}
    assert str(found[0]).startswith("not measured debian-12: ")
    assert "missed" not in "".join(map(str, found)).lower()
    assert targets.status(found) == 3


def test_what_did_not_fit_into_the_time_says_so() -> None:
    mine = {"detach": 0.5, "attach": 5.0, "attached": 1000}
    found = ratios(line(CALLS, 1000, {EVENT: [mine]}, left_out={BCC: NO_TIME}))
    ratio = found["1,000 probes attached, against bcc's calls"]
    assert ratio.verdict is Verdict.NOT_MEASURED
    assert "not measured (bcc: no time left), wanted >= 2 x" in str(ratio)


MET = targets.Ratio("k", "met", 2.0, 1.0)
MISSED = targets.Ratio("k", "missed", 0.5, 1.0)
NOT_MEASURED = targets.Ratio("k", "not measured", None, 1.0)


@pytest.mark.parametrize(
    ("found", "status", "summary"),
    [
        ([MET, MET], 0, "2 of 2 targets met"),
        ([MET, MISSED], 1, "1 of 2 targets met, 1 missed"),
        ([NOT_MEASURED, MET], 3, "1 of 2 targets met, 1 not measured"),
        ([NOT_MEASURED, MISSED, MET], 1, "1 of 3 targets met, 1 missed, 1 not measured"),
        ([NOT_MEASURED], 3, "0 of 1 targets met, 1 not measured"),
    ],
)
def test_the_status_tells_missed_from_not_measured(
    found: list[targets.Ratio], status: int, summary: str
) -> None:
    assert targets.status(found) == status
    assert targets.summary(found) == summary


@pytest.mark.parametrize("kernel", ["debian-11", "debian-12", "debian-13", "debian-sid"])
def test_start_up(kernel: str) -> None:
    samples: Samples = {BATCHPROBE: [{"first": 1.0}], FUNCCOUNT: [{"first": 12.0}]}
    text = line(COMMAND, 1, {**samples, BPFTRACE: [{"first": 3.9}]})
    found = ratios(text, kernel=kernel)
    funccount = found[f"from command to first probe armed, against {FUNCCOUNT}"]
    assert (funccount.wanted, funccount.verdict) == (12, Verdict.MET)
    bpftrace = found[f"from command to first probe armed, against {BPFTRACE}"]
    assert (bpftrace.value, bpftrace.wanted, bpftrace.verdict) == (3.9, 4, Verdict.MISSED)


def test_fewer_probes_are_extrapolated_and_that_is_said() -> None:
    mine = {"detach": 0.5, "attach": 5.0, "attached": 1000}
    theirs = {"detach": 30.0, "attach": 6.0, "attached": 300}
    found = ratios(line(CALLS, 1000, {EVENT: [mine]}), line(CALLS, 300, {BCC: [theirs]}))
    ratio = found["1,000 probes removed, against bcc's calls (funccount's, too)"]
    assert ratio.value == pytest.approx(200)
    assert ratio.verdict is Verdict.MET
    assert ": 200.00 x, extrapolated from 300 probes of bcc, wanted" in str(ratio)
    few = line(CALLS, 10, {BCC: [{**theirs, "attached": 10}]})
    found = ratios(line(CALLS, 1000, {EVENT: [mine]}), few)
    assert found[ratio.text].verdict is Verdict.NOT_MEASURED
    real = {"detach": 100.0, "attach": 6.0, "attached": 990}
    found = ratios(line(CALLS, 1000, {EVENT: [mine], BCC: [real]}))
    assert not found[ratio.text].extrapolated
    # The same measurement, but the tool could attach only some of the functions.
    found = ratios(line(CALLS, 1000, {EVENT: [mine], BCC: [{**real, "attached": 500}]}))
    assert found[ratio.text].extrapolated == "500 probes of bcc"


def test_everything_where_there_are_links() -> None:
    command = {"exit": 4.0, "memory": 210.0, "fds": 18, "attached": 40_000}
    calls = {"final": 0.05, "grace": 0.016, "detach": 4.0, "attached": 40_000}
    found = ratios(
        line(COMMAND, 1, {BATCHPROBE: [{"fds": 17}]}),
        line(COMMAND, EVERYTHING, {BATCHPROBE: [command], BPFTRACE: [{**command, "exit": 5.0}]}),
        line(CALLS, EVERYTHING, {MULTI: [calls]}),
        kernel="debian-13",
    )
    verdicts = {text: ratio.verdict for text, ratio in found.items()}
    exit_ = "all functions, from Ctrl-C to the command's end, against bpftrace"
    assert verdicts[exit_] is Verdict.MET
    assert verdicts["all functions, peak memory"] is Verdict.MISSED
    assert verdicts["all functions, counts final after"] is Verdict.MISSED
    assert verdicts["open files with all functions, more than with 1"] is Verdict.MET
    found = ratios(line(CALLS, EVERYTHING, {MULTI: [{**calls, "final": 0.04}]}), kernel="debian-13")
    assert found["all functions, counts final after"].verdict is Verdict.MET


@pytest.mark.parametrize(("kernel", "wanted"), [("debian-12", 60), ("debian-13", 30)])
def test_tools(kernel: str, wanted: int) -> None:
    # The first of bcc's kprobes is armed long before the tool says that it traces.
    plain = {"first": 20.0, "all": 40.0, "exit": 70.0, "attached": 800}
    ours = {"first": 41.0, "all": 42.0, "exit": 1.0, "attached": 800}
    hits: Samples = {OWN: [{"cost": 900.0}], BCC: [{"cost": 700.0}]}
    found = ratios(
        line(TOOLS, 800, {FUNCCOUNT: [plain], BATCHED: [ours]}), line(HIT, 1, hits), kernel=kernel
    )
    what = "funccount of 800 functions through batchprobe"
    end = found[f"{what}, from Ctrl-C to its end"]
    assert (end.value, end.wanted, end.verdict) == (70, wanted, Verdict.MET)
    start = found[f"{what}, from command to all probes armed"]
    assert start.value == pytest.approx(0.952, abs=0.001)
    assert start.verdict is Verdict.MET
    hit = found["a hit of an own program, against bcc's attach of the same"]
    assert hit.verdict is Verdict.MISSED
    assert not any("own program" in text or "funccount of" in text for text in ratios())


FACTS = {"cpu": "c", "cpus": "2", "qemu": "7", "release": "6.1"}
FOR_THE_PAGE = {
    "machine": FACTS,
    "versions": {**FACTS, "bcc": "0.26", "bpftrace": "v0.17", "python": "3.11"},
    "busy": 2.0,
    "commit": "3f170c3",
}


def page_of(folder: Path, *lines: str) -> str:
    from _bench import page  # noqa: PLC0415

    page.write(results.parse(lines), folder)
    return (folder / "benchmarks.md").read_text()


def test_the_page_says_where_we_do_not_lead(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    samples: Samples = {
        BATCHPROBE: [{"first": 2.0, "attached": 10}],
        BPFTRACE: [{"first": 1.0, "attached": 10}],
    }
    said = page_of(tmp_path, line(COMMAND, 10, samples, **FOR_THE_PAGE))
    behind = said.partition("does not lead")[2].partition("##")[0]
    assert "Start-up on debian-12: 10 functions 2 against bpftrace's 1 s" in behind
    assert "Python 3.11, batchprobe 3f170c3; a grace" in said
    assert "1 of 1 measurements were made beside other work" in said
    assert (tmp_path / "benchmarks" / "command-first.svg").stat().st_size < 100_000


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("_bench.plots.draw", lambda *_: False)


@pytest.mark.usefixtures("no_plots")
def test_the_page_does_not_say_that_we_lag_where_we_lead(tmp_path: Path) -> None:
    samples: Samples = {
        BATCHPROBE: [{"exit": 1.0, "attached": 10}],
        BPFTRACE: [{"exit": 3.0, "attached": 10}],
    }
    said = page_of(tmp_path, line(COMMAND, 10, samples, **FOR_THE_PAGE))
    assert "Nowhere, in what was measured." in said


@pytest.mark.usefixtures("no_plots")
def test_the_page_has_a_bcc_tool_with_and_without_us(tmp_path: Path) -> None:
    plain = {"all": 40.0, "exit": 70.0, "attached": 200}
    ours = {"all": 41.0, "exit": 1.0, "attached": 200}
    said = page_of(
        tmp_path, line(TOOLS, 200, {FUNCCOUNT: [plain], BATCHED: [ours]}, **FOR_THE_PAGE)
    )
    end = said.partition("## A bcc tool, Ctrl-C")[2]
    assert "| functions | funccount, batched | funccount |" in end
    assert "| 200 (`x*`) | 1 | 70 |" in end
    assert "A bcc tool, all armed on debian-12: 200 functions 41 against funccount's 40 s" in said


@pytest.mark.usefixtures("no_plots")
def test_the_page_has_the_targets(tmp_path: Path) -> None:
    mine = {"detach": 0.5, "attach": 5.0, "attached": 1000}
    theirs = {"detach": 30.0, "attach": 1.5, "attached": 300}
    said = page_of(
        tmp_path,
        line(CALLS, 1000, {EVENT: [mine]}, **FOR_THE_PAGE),
        line(CALLS, 300, {BCC: [theirs]}, **FOR_THE_PAGE),
        line(
            COMMAND, 1, {BATCHPROBE: [{"first": 1.0}]}, **FOR_THE_PAGE, left_out={FUNCCOUNT: "a|b"}
        ),
    )
    rows = [row for row in said.splitlines() if row.startswith("| debian-12 | ")]
    assert (
        "| debian-12 | 1,000 probes removed, against bcc's calls (funccount's, too) "
        "| 200 x, extrapolated from 300 probes of bcc | at least 150 | met |"
    ) in rows
    assert (
        "| debian-12 | 1,000 probes attached, against bcc's calls "
        "| 1 x, extrapolated from 300 probes of bcc | at least 2 | **missed** |"
    ) in rows
    assert (
        "| debian-12 | from command to first probe armed, against funccount "
        "| not measured (funccount: a\\|b) | at least 12 | not measured |"
    ) in rows


def test_a_result_without_a_tool_has_no_median() -> None:
    result = Result(Key("k", CALLS, 1), 1, "x", 0.01, {}, {}, 0.0, {})
    assert result.median(BCC, "attach") is None


def test_the_wheel_is_built_again_when_its_content_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, cache = tmp_path / "checkout", tmp_path / "cache"
    for name in ("batchprobe", "bpf", "docs"):
        (checkout / name).mkdir(parents=True)
    files = ("pyproject.toml", "README.md", "docs/batchprobe.1", "batchprobe/a.py", "bpf/hit.h")
    for name in files:
        (checkout / name).write_text("")
    # As the checkout has it.
    (checkout / "batchprobe/bpf").symlink_to("../bpf")
    built = []

    def build(_checkout: Path, folder: Path) -> None:
        built.append(folder)
        (folder / "batchprobe.whl").write_text(str(len(built)))

    monkeypatch.setattr(wheel, "build", build)
    assert wheel.obtain(checkout, cache).read_text() == "1"
    assert wheel.obtain(checkout, cache).read_text() == "1"
    (checkout / "bpf/hit.h").write_text("changed")
    assert wheel.obtain(checkout, cache).read_text() == "2"
    (checkout / "batchprobe/a.pyc").write_text("no part of it")
    assert wheel.obtain(checkout, cache).read_text() == "2"
    assert [file.name for file in cache.iterdir()] == [wheel.obtain(checkout, cache).parent.name]
