# SPDX-License-Identifier: Apache-2.0
"""A service manager hears once that the probes count, at every form of address."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from batchprobe.cli import notify


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_ready_is_sent(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    address = f"@batchprobe-test-{os.getpid()}" if form == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1) if form == "abstract" else address)
        notify.notify_ready(address, "probes that count: 3")
        manager.setblocking(False)
        assert manager.recv(1024) == b"READY=1\nSTATUS=probes that count: 3"
        with pytest.raises(BlockingIOError):
            manager.recv(1024)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/nonexistent/notify", "No such file or directory"),
        ("@batchprobe-nobody-listens", "Connection refused"),
        ("vsock:2:1234", "neither a path nor an abstract socket"),
        ("relative", "neither a path nor an abstract socket"),
        ("/" + "x" * 200, "too long"),
    ],
)
def test_an_error_is_reported(address: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    notify.notify_ready(address, "")
    said = capfd.readouterr().err
    assert said.startswith("batchprobe: the service manager is not told")
    assert said.count("\n") == 1
    assert address in said
    assert reason in said


def test_a_manager_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notify, "_PATIENCE_SECONDS", 0.01)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    other.sendto(b"x", address)
        notify.notify_ready(address, "")
    assert "timed out" in capfd.readouterr().err
