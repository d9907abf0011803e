# SPDX-License-Identifier: Apache-2.0
"""An error becomes a message and an exit status, and on demand a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from batchprobe.cli.run import run
from batchprobe.cli.signals import Stop
from batchprobe.errors import ExitStatus, NothingAttachedError, VerifierError


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "batchprobe", *arguments),
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


def test_an_error_is_one_line() -> None:
    done = command("attach", "/nonexistent/list", BATCHPROBE_DEBUG="")
    assert done.returncode == ExitStatus.USAGE
    assert done.stderr == (
        "batchprobe: error: cannot read /nonexistent/list: No such file or directory\n"
    )


def test_the_traceback_is_printed_on_demand() -> None:
    done = command("attach", "/nonexistent/list", BATCHPROBE_DEBUG="1")
    assert done.returncode == ExitStatus.USAGE
    assert "Traceback (most recent call last):" in done.stderr
    # With the cause.
    assert "FileNotFoundError: [Errno 2] No such file or directory" in done.stderr
    assert done.stderr.endswith("/nonexistent/list: No such file or directory\n")


def test_the_end_of_the_verifiers_log_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = "\n".join(f"line {number}" for number in range(100))

    def attach(*_arguments: object) -> int:
        cause = VerifierError("bpf(BPF_PROG_LOAD, by_ip)", 13, log)
        raise NothingAttachedError("the kernel took none of the probes") from cause

    monkeypatch.setattr("batchprobe.cli.attach.attach_lists", attach)
    assert run(["attach", "funcs.txt"], object.__new__(Stop)) == ExitStatus.NOTHING_ATTACHED
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "batchprobe: error: the kernel took none of the probes"
    assert said[1] == "batchprobe: the end of the verifier's log:"
    assert said[2] == "batchprobe:   line 60"
    assert said[-1] == "batchprobe:   line 99"


@pytest.mark.parametrize("word", ["attach", "functions", "doctor", "cleanup"])
def test_every_command_has_help(word: str) -> None:
    done = command(word, "--help", NO_COLOR="1")
    assert done.returncode == ExitStatus.OK
    assert f"batchprobe {word}" in done.stdout
