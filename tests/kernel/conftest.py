# SPDX-License-Identifier: Apache-2.0
"""Every test here runs on a real kernel, and leaves it as it was."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from helpers import figures
from helpers.machine import ABIS, Held, children, eventually, held, why_not
from helpers.workers import Worker

from batchprobe import Session


@pytest.fixture(scope="session", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A kernel with kprobes, and one cache, so that the programs are compiled once."""
    if lacking := why_not():
        if os.environ.get("BATCHPROBE_GUEST"):
            pytest.exit(f"scripts/vm made a guest that cannot trace: {lacking}", returncode=1)
        pytest.skip(lacking)
    os.environ.setdefault("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    # Probes are tried at first use: not in the middle of a test that counts what the kernel does.
    for abi in ABIS:
        with Session(abi=abi) as session:
            session.attach(["vfs_read"])
    # A start that writes bytecode would make calls of its own.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="session")
def workers(kernel: None) -> Iterator[list[Worker]]:
    """One on each of two CPUs, or two on the only one."""
    cpus = sorted(os.sched_getaffinity(0))
    with Worker(cpus[0]) as first, Worker(cpus[-1]) as second:
        yield [first, second]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What locks the kernel down, for good, comes last."""
    items.sort(key=lambda item: item.get_closest_marker("lockdown") is not None)


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest, workers: list[Worker]) -> Iterator[None]:
    """No trace event, link, program, setting, descriptor or process stays behind."""
    if request.node.get_closest_marker("lockdown"):
        yield  # nothing can be read any more
        return
    before, fds, processes = held(), _fds(), children()
    yield
    # The kernel frees what a closed descriptor held a little later.
    now: list[Held] = []

    def same() -> bool:
        now[:] = [held()]
        return now[0] == before

    try:
        eventually(same, "the kernel is as it was", seconds=20)
    except AssertionError:
        assert now[0] == before, "left in the kernel"
    assert _fds() == fds, "descriptors were left open"
    assert children() == processes, "processes were left"


def _fds() -> dict[str, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[fd.name] = str(fd.readlink())
        except FileNotFoundError:
            continue  # the one that lists them
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
    """A failure is shown at once: a long run may not come to its end."""
    report = yield
    reporter = item.config.pluginmanager.get_plugin("terminalreporter")
    if report.failed and reporter is not None:
        reporter.write_line(f"\n{item.nodeid}\n{report.longreprtext}")
    return report
