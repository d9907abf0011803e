# SPDX-License-Identifier: Apache-2.0
"""Each file of examples/ does what it says."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import Running, run
from helpers.machine import BCC_COMPILES, HANG_SECONDS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.one_kernel


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, EXAMPLES / name, *arguments),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def test_every_example_has_a_test() -> None:
    tested = Path(__file__).read_text()
    # "batchprobe-least-rights.service" is run by test_least_rights.py.
    names = [file.name for file in EXAMPLES.iterdir() if file.is_file()]
    assert len(names) >= 3
    assert [name for name in names if f'"{name}"' not in tested] == []


def test_the_list_attaches_and_counts() -> None:
    done = run("attach", EXAMPLES / "funcs.txt", "-c", "sh -c 'ls -l /etc >/dev/null'", "--json")
    assert done.status == 0, done
    assert done.summary["attached"] > 50
    assert done.summary["hits"]["vfs_getattr_nosec"] > 0


def test_called_by() -> None:
    done = script("called_by.py", "vfs_mkdir", "vfs_rmdir", "--", "mkdir", "/run/called_by")
    Path("/run/called_by").rmdir()
    assert done.returncode == 0, done.stderr
    # A line such as "         1  vfs_mkdir". On a busy machine, others may call it too.
    called = {line.split()[1]: int(line.split()[0]) for line in done.stdout.splitlines()}
    assert called["vfs_mkdir"] >= 1
    assert "2 probes off with 1 barrier" in done.stderr


@pytest.mark.skipif(not BCC_COMPILES, reason="no working bcc here")
def test_read_sizes() -> None:
    command = ("head", "-c", "100000", "/dev/zero")
    done = script("read_sizes.py", "vfs_read", "vfs_write", "--", *command)
    assert done.returncode == 0, done.stderr
    assert "distribution" in done.stdout
    assert "2 probes off with 1 barrier" in done.stderr


def test_latency() -> None:
    done = script("latency.py", "hrtimer_nanosleep", "vfs_read", "--", "sleep", "0.3")
    assert done.returncode == 0, done.stderr
    heads, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heads[-1] == "FUNCTION"
    # sleep(1) reads its libraries, which takes no time beside its sleep.
    assert [row[-1] for row in rows] == ["hrtimer_nanosleep", "vfs_read"]
    assert rows[0][0] == "1"
    assert "2 of 2 functions were called, 0 calls did not return" in done.stderr
    assert "2 probes off with 1 barrier" in done.stderr


def test_events() -> None:
    done = script("events.py", "do_sys_openat2", "--", "cat", "/nonexistent/x")
    # That of cat.
    assert done.returncode == 1, done.stderr
    failed = [line for line in done.stdout.splitlines() if "'filename': '/nonexistent/x'" in line]
    assert len(failed) == 1, done.stdout
    assert "'result': -2, 'error': 'ENOENT'" in failed[0]
    assert "0 are unknown; 1 probes off with 1 barrier" in done.stderr


def test_stacks() -> None:
    done = script("stacks.py", "vfs_mkdir", "vfs_rmdir", "--", "mkdir", "/run/stacks")
    Path("/run/stacks").rmdir()
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    stack, calls = line.split()
    assert calls == "1"
    assert stack.endswith(";vfs_mkdir")
    assert "1 calls from 1 stacks, 0 without one" in done.stderr
    assert "2 probes off with 1 barrier" in done.stderr


@pytest.mark.one_kernel
def test_errors() -> None:
    done = script("errors.py", "do_sys_openat2", "--", "cat", "/nonexistent")
    assert done.returncode == 1, done.stderr
    totals = [line.split() for line in done.stdout.splitlines() if line.startswith("all ")]
    (row,) = (row for row in totals if row[2] == "ENOENT")
    assert row[3:5] == ["do_sys_openat2%return", "last"]
    assert int(row[1]) >= 1
    assert "0 errors without room; 1 probes off with 1 barrier" in done.stderr


def test_narrow_down() -> None:
    done = script("narrow_down.py", "vfs_*", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert "vfs_" in done.stdout


def test_the_service_starts_and_stops(tmp_path: Path) -> None:
    # A unit may have a key twice; this one has not.
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(EXAMPLES / "batchprobe.service")
    assert unit["Service"]["Type"] == "notify"
    _, *start = shlex.split(unit["Service"]["ExecStart"])
    _, *stop_post = shlex.split(unit["Service"]["ExecStopPost"])
    funcs = tmp_path / "funcs.txt"
    funcs.write_text("vfs_read\n")
    arguments = [str(funcs) if word.endswith("/funcs.txt") else word for word in start]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(HANG_SECONDS)
        env = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
        with Running(*arguments, env=env) as running:
            assert manager.recv(1024).startswith(b"READY=1\n")
            running.signal(signal.SIGTERM)
            done = running.finish()
    assert done.status == 0, done
    assert done.summary["attached"] == 1
    after = run(*stop_post)
    assert after.status == 0, after
