# SPDX-License-Identifier: Apache-2.0
"""How scripts/test runs commands: several at once, a log each, and an end for all on a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _suite.run import Command, Interrupted, foreground, guests, interruptible
from _suite.verdict import failure


def judge(status: int) -> str | None:
    return failure(status, is_selected=False)


def shell(name: str, script: str) -> Command:
    return Command(name, ["sh", "-c", script])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_log_is_printed_whole_and_failures_are_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    talk = "for i in 1 2 3; do echo $0 $i; echo $0 $i >&2; done; exit $1"
    commands = [Command(n, ["sh", "-c", talk, n, s]) for n, s in (("a", "0"), ("b", "3"))]
    assert guests(commands, 2, judge) == ["b"]
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines[:2]) == ["== a begins", "== b begins"]
    for name, verdict in (("a", "ok"), ("b", "failed with status 3")):
        at = lines.index(f"== {name}")
        said = [f"{name} {n}" for n in (1, 1, 2, 2, 3, 3)]
        assert lines[at + 1 : at + 8] == [*said, f"== {name}: {verdict}, 0 s"]


def test_no_more_at_once_than_allowed(tmp_path: Path) -> None:
    held = f"mkdir {tmp_path}/lock && sleep 0.05 && rmdir {tmp_path}/lock"
    assert guests([shell(str(n), held) for n in range(3)], 1, judge) == []


def test_as_many_at_once_as_allowed(tmp_path: Path) -> None:
    """Each waits for the other."""
    meet = "touch $0/$1; until [ -e $0/$2 ]; do sleep 0.01; done"
    pair = [
        Command(mine, ["sh", "-c", meet, str(tmp_path), mine, other])
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    assert guests(pair, 2, judge) == []


def test_a_guest_reads_nothing_of_ours() -> None:
    assert guests([shell("a", "! read line")], 1, judge) == []


def test_in_the_foreground(capfd: pytest.CaptureFixture[str]) -> None:
    assert foreground(shell("unit", "echo said"), judge)
    assert capfd.readouterr().out == "== unit\nsaid\n== unit: ok, 0 s\n"
    assert not foreground(shell("unit", "exit 5"), judge)


RUNNER = """
import sys
from _suite.run import Command, Interrupted, {what}, interruptible
try:
    with interruptible():
        {call}
except Interrupted as interrupted:
    sys.exit(interrupted.status)
"""
SCRIPTS = str(Path(__file__).resolve().parents[3] / "scripts")


def runner(what: str, call: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER.format(what=what, call=call)],
        env={**os.environ, "PYTHONPATH": SCRIPTS},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_guest(tmp_path: Path, number: signal.Signals) -> None:
    script = f"echo heard; echo $$ >{tmp_path}/$0; exec sleep 100"
    commands = ", ".join(f"Command({n!r}, ['sh', '-c', {script!r}, {n!r}])" for n in "ab")
    with runner("guests", f"guests([{commands}], 2, lambda status: None)") as process:
        eventually(lambda: len(list(tmp_path.glob("[ab]"))) == 2)
        eventually(lambda: all(file.read_text() for file in tmp_path.glob("[ab]")))
        pids = [int(file.read_text()) for file in tmp_path.glob("[ab]")]
        process.send_signal(number)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert not any(map(is_alive, pids))
    assert said.count("heard") == 2
    assert "== a: interrupted" in said


def test_a_runner_that_is_killed_leaves_no_guest(tmp_path: Path) -> None:
    script = f"echo $$ >{tmp_path}/a; exec sleep 100"
    call = f"guests([Command('a', ['sh', '-c', {script!r}])], 1, lambda status: None)"
    with runner("guests", call) as process:
        eventually(lambda: (tmp_path / "a").exists() and bool((tmp_path / "a").read_text()))
        process.kill()
    pid = int((tmp_path / "a").read_text())
    eventually(lambda: not is_alive(pid))


def test_pytest_in_the_foreground_may_tear_down(tmp_path: Path) -> None:
    script = f"trap 'echo torn down; exit 2' INT; touch {tmp_path}/on; while :; do sleep 0.01; done"
    call = f"foreground(Command('vm', ['sh', '-c', {script!r}]), lambda status: None)"
    with runner("foreground", call) as process:
        eventually((tmp_path / "on").exists)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == "== vm\ntorn down\n"


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as interrupted, interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert interrupted.value.status == 143
    assert signal.getsignal(signal.SIGTERM) == before
