# SPDX-License-Identifier: Apache-2.0
"""Started by a service manager, the command reports when its probes count."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import Running, run
from helpers.machine import HANG_SECONDS

pytestmark = pytest.mark.one_kernel


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager listens, at NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(HANG_SECONDS)
        yield listening


@pytest.fixture
def env(manager: socket.socket) -> dict[str, str]:
    return {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}


def test_ready_comes_when_the_probes_count(
    manager: socket.socket, env: dict[str, str], tmp_path: Path
) -> None:
    entries = tmp_path / "entries"
    entries.write_text("syscall:getsid\n")
    with Running("attach", entries, "--json", env=env) as running:
        assert manager.recv(1024).startswith(b"READY=1\n")
        for _ in range(3):
            os.getsid(0)
        running.signal(signal.SIGTERM)
        done = running.finish()
    assert done.status == 0, done
    assert done.summary["hits"]["syscall:getsid"] >= 3
    # Ended, so nothing more can come.
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1024)


def test_nothing_is_ready_where_nothing_is_attached(
    manager: socket.socket, env: dict[str, str]
) -> None:
    done = run("attach", "-", "--json", stdin="nosuch\n", env=env)
    assert done.status == 3, done
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1024)


def test_a_manager_that_is_gone_is_reported(env: dict[str, str], tmp_path: Path) -> None:
    nobody = {**env, "NOTIFY_SOCKET": str(tmp_path / "nobody")}
    done = run("attach", "-", "-d", "0", "--json", stdin="syscall:getsid\n", env=nobody)
    assert done.status == 0, done
    assert done.summary["attached"] == 1
    assert "No such file or directory" in done.stderr
