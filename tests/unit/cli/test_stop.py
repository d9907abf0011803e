# SPDX-License-Identifier: Apache-2.0
"""What the command waits for."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from batchprobe.cli.signals import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield Stop()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_wait_ends_with_its_time(stop: Stop) -> None:
    began = time.monotonic()
    assert not stop.wait(0.05)
    assert 0.05 <= time.monotonic() - began < 5
    assert not stop.wait(0.0)


@pytest.mark.parametrize("also", [False, True])
def test_a_signal_ends_a_wait(stop: Stop, also: bool) -> None:
    reader, writer = os.pipe()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert stop.wait(None, [reader] if also else [])
    assert stop.number == signal.SIGTERM
    # The next wait is over at once.
    assert stop.wait(None)
    timer.join()
    os.close(reader)
    os.close(writer)


def test_another_descriptor_ends_a_wait(stop: Stop) -> None:
    reader, writer = os.pipe()
    os.write(writer, b".")
    assert not stop.wait(None, [reader])
    os.close(reader)
    os.close(writer)


def test_a_descriptor_may_have_a_high_number(stop: Stop) -> None:
    """select() takes none above 1,023, and an attach may open thousands."""
    high = 2000
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] <= high:
        pytest.skip(f"no more than {limits[1]} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], high + 1), limits[1]))
    reader, writer = os.pipe()
    try:
        os.dup2(reader, high)
        os.write(writer, b".")
        assert not stop.wait(None, [high])
    finally:
        for fd in (reader, writer, high):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
