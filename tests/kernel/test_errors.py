# SPDX-License-Identifier: Apache-2.0
"""Errors that functions return are counted by name, and no others."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.command import run
from helpers.machine import ABIS, kinds

from batchprobe import Session
from batchprobe.actions.errors import Errors
from batchprobe.filters.pid import Pid

# Linux 7.2 has another name for it.
IS_RENAMED = " do_file_open\n" in Path("/proc/kallsyms").read_text()
LOOKUP = "do_file_open" if IS_RENAMED else "do_filp_open"
OPEN = "do_sys_openat2"


@pytest.fixture(params=ABIS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Counts errors of this process."""
    if "%return" not in kinds(request.param):
        pytest.skip("this kernel refuses return probes, which stand at the entry")
    with Session(action=Errors(), abi=request.param, filters=[Pid(os.getpid())]) as session:
        yield session


def test_error_pointers_and_negative_numbers_are_counted(session: Session) -> None:
    """do_filp_open(), or do_file_open(), returns a pointer, do_sys_openat2() a long."""
    probes = {probe.label: probe for probe in session.attach([LOOKUP, OPEN])}
    assert not session.skipped
    for _ in range(7):
        with suppress(FileNotFoundError):
            os.open("/nonexistent", os.O_RDONLY)
    for _ in range(3):
        with suppress(NotADirectoryError):
            os.open("/proc/version/x", os.O_RDONLY)
    for _ in range(20):
        os.close(os.open("/", os.O_RDONLY))
    report = session.detach_all()
    assert report.barriers == 1
    for name in (f"{LOOKUP}%return", f"{OPEN}%return"):
        found = probes[name].value
        counts = {error: failure.count for error, failure in found.items()}
        assert {"ENOENT": 7, "ENOTDIR": 3}.items() <= counts.items()
        assert found["ENOENT"].pid == os.getpid()
        assert found["ENOENT"].tid == threading.get_native_id()
    assert session.lost() == 0


def test_what_grows_is_told_by_differences(session: Session) -> None:
    (probe,) = session.attach([OPEN])
    for times in (2, 5):
        before = session.snapshot()[probe]
        for _ in range(times):
            with suppress(FileNotFoundError):
                os.open("/nonexistent", os.O_RDONLY)
        assert (session.snapshot()[probe] - before)["ENOENT"].count == times


def test_functions_that_return_no_error_are_skipped(session: Session) -> None:
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF")
    session.attach([OPEN, "fput"])
    (skip,) = session.skipped
    assert "returns nothing" in skip.message


@pytest.mark.one_kernel
def test_the_command_shows_errors_by_name() -> None:
    if "%return" not in kinds("auto"):
        pytest.skip("this kernel refuses return probes")
    done = run("trace", "--errors", OPEN, "-c", "cat /nonexistent/x")
    (row,) = [line.split() for line in done.stdout.splitlines() if "ENOENT" in line]
    assert int(row[0]) >= 1
    assert row[3:] == ["cat", f"{OPEN}%return"]
    assert done.status == 1
    in_json = run("trace", "--errors", OPEN, "--json", "-c", "cat /nonexistent/x")
    found = in_json.summary["functions"][f"{OPEN}%return"][errno.errorcode[errno.ENOENT]]
    assert found["comm"] == "cat"
