# SPDX-License-Identifier: Apache-2.0
"""An error becomes a message and an exit status, and on demand a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from batchprobe.cli.run import run
from batchprobe.cli.signals import Stop
from batchprobe.errors import ExitStatus, NothingAttachedError, UnsupportedError, VerifierError


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


def test_a_log_that_says_no_more_than_the_error_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = "program requires BPF JIT compiler\nprocessed 0 insns (limit 1000000)\n"

    def attach(*_arguments: object) -> int:
        cause = VerifierError("bpf(BPF_PROG_LOAD, by_ip)", 22, log)
        raise UnsupportedError("refused: program requires BPF JIT compiler") from cause

    monkeypatch.setattr("batchprobe.cli.attach.attach_lists", attach)
    assert run(["attach", "funcs.txt"], object.__new__(Stop)) == ExitStatus.UNSUPPORTED
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "batchprobe: error: refused: program requires BPF JIT compiler"


def closed(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command without one of its standard descriptors."""
    shell = ("sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "batchprobe")
    return subprocess.run((*shell, *arguments), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [("attach", "examples/funcs.txt"), ("functions", "vfs_read"), ("doctor",)]
)
def test_a_closed_standard_output_is_an_error(words: tuple[str, ...]) -> None:
    done = closed(">&-", *words)
    assert done.returncode == ExitStatus.USAGE
    (line,) = done.stderr.splitlines()
    assert line.startswith("batchprobe: error: standard output is closed: ")


def test_a_closed_standard_error_changes_no_status() -> None:
    done = closed("2>&-", "attach", "/nonexistent/list")
    assert (done.returncode, done.stdout, done.stderr) == (ExitStatus.USAGE, "", "")
    done = closed("<&-", "attach", "-")
    assert done.returncode == ExitStatus.USAGE
    assert "Traceback" not in done.stderr


def test_closed_standard_descriptors_are_not_used_for_anything_else() -> None:
    code = (
        "import os, sys; from batchprobe import __main__ as m; sys.argv[1:] = ['attach', '/no'];"
        "m.main(); print(*map(os.readlink, map('/proc/self/fd/{}'.format, range(3))))"
    )
    shell = ("sh", "-c", 'exec "$@" <&- 2>&-', "sh", sys.executable, "-c", code)
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    first, _, third = done.stdout.split()
    assert (first, third) == (os.devnull, os.devnull)


@pytest.mark.parametrize("word", ["attach", "functions", "doctor", "cleanup"])
def test_every_command_has_help(word: str) -> None:
    done = command(word, "--help", NO_COLOR="1")
    assert done.returncode == ExitStatus.OK
    assert f"batchprobe {word}" in done.stdout
