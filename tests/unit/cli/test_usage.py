# SPDX-License-Identifier: Apache-2.0
"""A line that is plainly wrong is refused without typer, and only if typer refuses it too."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchprobe.cli import app
from batchprobe.cli.args import OPTIONS, read_usual
from batchprobe.cli.signals import Stop
from batchprobe.cli.usage import refuse_plain_faults
from batchprobe.errors import ExitStatus, UsageError

FLAGS = [flag for option in OPTIONS.values() for flag in option.flags]
VALUES = ["5", "0", "-1", "1e3", "nan", "1_0", " 5", "5.", "x", "", "auto", "perf", "true", "-x"]
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(VALUES),
    st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)).map("=".join),
    st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)).map("".join),
    st.sampled_from(["funcs.txt", "-", "--", "--help", "--abi-", "-vd5", "-xv", "--=", "---", "-"]),
)
LINES = st.lists(WORDS, max_size=5).map(lambda words: ["attach", *words])


def refused(line: list[str]) -> str:
    with pytest.raises(UsageError) as error:
        refuse_plain_faults(line)
    return str(error.value)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(line=LINES)
def test_typer_refuses_what_is_refused(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        refuse_plain_faults(line)
    except UsageError:
        assert read_usual(line) is None
        monkeypatch.setattr(sys, "argv", ["batchprobe", *line])
        with pytest.raises(UsageError):
            app.run(object.__new__(Stop))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", "ENTRY or FILE is missing: a function, or a list of functions; - is standard input"),
        (
            "-d 5",
            "ENTRY or FILE is missing: a function, or a list of functions; - is standard input",
        ),
        ("f --durtion 5", "no such option: --durtion; did you mean --duration?"),
        ("f --zzz=1", "no such option: --zzz"),
        ("f -x", "no such option: -x"),
        ("f -d", "-d needs a value"),
        ("f -d x", "-d 'x': not a time: write 5, 500ms, 5m or 1h"),
        ("f -d -1", "-d '-1': less than 0"),
        ("f --interval=0.001", "--interval '0.001': less than 0.01"),
        ("f --top 1.5", "--top '1.5': not a whole number"),
        ("f --top 0", "--top '0': less than 1"),
        ("f --abi all", "--abi 'all': not one of auto, multi, event, perf"),
        ("f --json=1", "--json takes no value"),
    ],
)
def test_the_fault_is_named(line: str, fault: str) -> None:
    assert refused(["attach", *line.split()]) == f"{fault} (see `batchprobe attach --help`)"


@pytest.mark.parametrize(
    "line",
    ["", "doctor --x", "attach --help", "attach -x --help", "attach -- -x", "attach f -vd5",
     "attach f -d 1e3", "attach f -d inf", "attach f --top 1_0", "attach f -o -x", "attach -"],
)  # fmt: skip
def test_the_rest_is_left_to_typer(line: str) -> None:
    refuse_plain_faults(line.split())


@pytest.mark.parametrize("line", ["", "-x f", "f -d x", "f --abi all"])
def test_a_plain_fault_does_not_import_typer(line: str) -> None:
    done = subprocess.run(
        (sys.executable, "-X", "importtime", "-m", "batchprobe", "attach", *line.split()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitStatus.USAGE
    imported = {said.rpartition("|")[2].strip() for said in done.stderr.splitlines()}
    assert "batchprobe.cli.usage" in imported
    assert not {"typer", "click", "rich"} & imported


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("functions", "missing argument 'ENTRY|FILE' (see `batchprobe functions --help`)"),
        ("doctor --jsn", "(see `batchprobe doctor --help`)"),
        ("atach f", "(see `batchprobe --help`)"),
    ],
)
def test_faults_that_typer_finds_look_the_same(
    line: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["batchprobe", *line.split()])
    with pytest.raises(UsageError) as error:
        app.run(object.__new__(Stop))
    said = str(error.value)
    assert said.endswith(fault)
    assert said[:1].islower()
