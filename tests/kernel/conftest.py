# SPDX-License-Identifier: Apache-2.0
"""Fixtures: each test runs on a real kernel, and must leave it as it was."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from helpers import figures
from helpers.machine import (
    ABIS,
    GUARDIAN,
    KernelState,
    children,
    eventually,
    kernel_state,
    missing_prerequisite,
)
from helpers.workers import Worker

from batchprobe import Session


@pytest.fixture(scope="session", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip without kprobes. All tests share one cache, so programs are compiled once."""
    if lacking := missing_prerequisite():
        if os.environ.get("BATCHPROBE_GUEST"):
            pytest.exit(f"scripts/vm made a guest that cannot trace: {lacking}", returncode=1)
        pytest.skip(lacking)
    os.environ.setdefault("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    # Calibrate now: it runs at first use, and would disturb a test that counts kernel calls.
    for abi in ABIS:
        with Session(abi=abi) as session:
            session.attach(["vfs_read"])
    # Writing .pyc files would add calls to those that a test counts.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="session")
def workers(kernel: None) -> Iterator[list[Worker]]:
    """Two workers, on different CPUs if there are several."""
    cpus = sorted(os.sched_getaffinity(0))
    with Worker(cpus[0]) as first, Worker(cpus[-1]) as second:
        yield [first, second]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that lock the kernel down last, because that cannot be undone."""
    items.sort(key=lambda item: item.get_closest_marker("lockdown") is not None)


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest, workers: list[Worker]) -> Iterator[None]:
    """Fail if a trace event, link, program, setting, descriptor or process stays behind."""
    if request.node.get_closest_marker("lockdown"):
        yield  # under lockdown nothing can be read
        return
    before, fds, processes = kernel_state(), _fds(), children()
    yield
    # The kernel frees the objects of closed descriptors a little later.
    now: list[KernelState] = []

    def same() -> bool:
        now[:] = [kernel_state()]
        return now[0] == before

    try:
        eventually(same, "the kernel is as it was", seconds=20)
    except AssertionError:
        assert now[0] == before, "objects were left in the kernel"
    assert _fds() == fds, "descriptors were left open"
    assert children() == processes, "processes were left running"


@pytest.fixture
def guardian_ends(leaves_nothing: None) -> Iterator[None]:
    """A guardian that was busy at the end of its session ends by itself."""
    yield
    for pid, command in children().items():
        if GUARDIAN in command or not command:
            os.waitpid(pid, 0)


def _fds() -> dict[str, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[fd.name] = str(fd.readlink())
        except FileNotFoundError:
            continue  # the descriptor of this listing
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures.lines:
        terminalreporter.section("figures")
        for line in figures.lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print each failure at once, because a long run may be cut short."""
    report = yield
    reporter = item.config.pluginmanager.get_plugin("terminalreporter")
    if report.failed and reporter is not None:
        reporter.write_line(f"\n{item.nodeid}\n{report.longreprtext}")
    return report
