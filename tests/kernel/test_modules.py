# SPDX-License-Identifier: Apache-2.0
"""Functions of modules: loaded, not loaded yet, unloaded while probed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import Running
from helpers.machine import ABIS, eventually, kinds, our_events
from helpers.modules import DISKSIZE, INITSTATE, MODULE, is_loaded, load, unload

from batchprobe import Reason, Session
from batchprobe.functions.cache import SymbolCache, loaded_modules
from batchprobe.functions.table import Function, FunctionTable
from batchprobe.kernel.tracefs import Tracefs

CACHED_SYMBOLS = Path("/run/batchprobe/boot/symbols")


@pytest.fixture(autouse=True)
def _unloaded(leaves_nothing: None) -> Iterator[None]:
    assert not is_loaded()
    yield
    if is_loaded():
        unload()


def read(file: Path, times: int) -> None:
    """Each read calls the attribute's function once."""
    fd = os.open(file, os.O_RDONLY)
    for _ in range(times):
        os.pread(fd, 64, 0)
    os.close(fd)


def test_probes_wait_for_their_module() -> None:
    kind = kinds("event")[-1]
    with Session(abi="event") as session:
        probes = session.attach(
            [f"{MODULE}:disksize_show", f"{MODULE}:initstate_show{kind}", "syscall:getsid"]
        )
        assert not session.skipped
        size, state, getsid = probes
        assert size.target.pending
        assert size.address is None
        assert [probe.count for probe in probes] == [0, 0, 0]

        load()
        read(DISKSIZE, 100)
        read(INITSTATE, 50)
        os.getsid(0)
        assert session.counts() == {size: 100, state: 50, getsid: 1}
        assert [probe.count for probe in probes] == [100, 50, 1]

        # The kernel removes the probes with the module, and attaches them again when it is back,
        # usually at another address.
        for times in range(1, 6):
            assert unload().returncode == 0
            load()
            read(DISKSIZE, 10)
            read(INITSTATE, 5)
            expected = {size: 100 + 10 * times, state: 50 + 5 * times, getsid: 1}
            assert session.counts() == expected
        assert unload().returncode == 0
        assert session.counts() == expected
        load()

        session.detach(size, commit=True)
        read(DISKSIZE, 1)
        assert size.count == 150
        report = session.detach_all()
        assert report.failed == ()
    assert (size.count, state.count, getsid.count) == (150, 75, 1)


def test_unclaimed_hits_of_an_unloaded_module_are_missed() -> None:
    """Each load may be at another address. Hits at one that was not looked up have no name."""
    with Session(abi="event") as session:
        (size,) = session.attach([f"{MODULE}:disksize_show"])
        for _ in range(3):
            load()
            read(DISKSIZE, 10)
            assert unload().returncode == 0
    missed = session.missed()
    assert missed is not None
    assert size.count + missed == 30


def hears_of_modules(pid: int) -> bool:
    """Whether the process has a netlink socket for the kernel's uevents."""
    for line in Path("/proc/net/netlink").read_text().splitlines()[1:]:
        _, protocol, port, groups, *_ = line.split()
        # pyroute2 has the process ID in the lower bits of the port.
        if (protocol, int(groups, 16), int(port) & 0x3FFFFF) == ("15", 1, pid):
            return True
    return False


@pytest.mark.parametrize("hears", [False, True])
def test_the_command_claims_hits_while_a_module_is_loaded(tmp_path: Path, hears: bool) -> None:
    """The module may come before and after the command hears of modules from the kernel."""
    few = tmp_path / "few"
    few.write_text(f"{MODULE}:disksize_show\n")
    with Running("attach", few, "--json", "--abi", "event") as running:
        eventually(our_events, "the probe is defined")
        if hears:
            running.until(lambda: hears_of_modules(running.pid), "it hears of modules")
        load()
        # The command then reads the symbols, and caches them.
        before = CACHED_SYMBOLS.stat().st_mtime_ns
        read(DISKSIZE, 10)
        eventually(lambda: CACHED_SYMBOLS.stat().st_mtime_ns != before, "the command reads symbols")
        assert unload().returncode == 0
        running.signal(signal.SIGINT)
        done = running.finish()
    assert done.status == 0, done
    assert done.summary["missed"] == 0
    assert done.summary["hits"] == {f"{MODULE}:disksize_show": 10}


def test_probes_whose_module_went_away_come_off() -> None:
    load()
    with Session(abi="event") as session:
        (size,) = session.attach([f"{MODULE}:disksize_show"])
        read(DISKSIZE, 30)
        assert unload().returncode == 0
        report = session.detach_all()
        assert (report.probes, report.failed) == (1, ())
    assert size.count == 30


@pytest.mark.parametrize("abi", ABIS)
def test_loaded_module(abi: str) -> None:
    load()
    with Session(abi=abi) as session:
        returns = [f"{MODULE}:disksize_show{kind}" for kind in kinds(abi)[1:]]
        probes = session.attach([f"{MODULE}:*_show", *returns])
        by_label = {probe.label: probe for probe in probes}
        assert len(by_label) > 3
        assert {probe.target.module for probe in probes} == {MODULE}
        read(DISKSIZE, 40)
        read(INITSTATE, 20)
        if abi == "multi":
            # A link holds a reference to the module.
            assert unload().returncode != 0
        session.detach_all()
    counted = {label: probe.count for label, probe in by_label.items() if probe.count}
    assert counted == {
        f"{MODULE}:disksize_show": 40,
        **dict.fromkeys(returns, 40),
        f"{MODULE}:initstate_show": 20,
    }
    assert unload().returncode == 0


def test_only_the_event_abi_waits_for_a_module() -> None:
    for abi in (abi for abi in ABIS if abi != "event"):
        with Session(abi=abi) as session:
            session.attach([f"{MODULE}:disksize_show", f"{MODULE}:*_show", "vfs_read"])
            reasons = [skip.reason for skip in session.skipped]
            assert reasons == [Reason.MODULE_NOT_LOADED, Reason.UNSUPPORTED]
            assert [probe.label for probe in session.attached] == ["vfs_read"]


def test_cached_symbols_follow_the_loaded_modules() -> None:
    root = Tracefs.find().root

    def same() -> bool:
        cached = FunctionTable.from_kernel(root, cache=SymbolCache())
        fresh = FunctionTable.from_kernel(root)
        return everything(cached) == everything(fresh) and cached.modules == fresh.modules

    def everything(table: FunctionTable) -> list[tuple[Function, bool | None, bool | None]]:
        return [
            (function, table.is_traceable(function), table.is_blacklisted(function.address))
            for function in table.matching(lambda _name: True)
        ]

    seen = []
    for change in (bool, bool, load, unload, load):
        change()
        seen.append(loaded_modules())
        # The first call reads them from the kernel, the second from the cache.
        assert same()
        assert same()
    assert seen[0] == seen[1] == seen[3]
    # A module that is loaded again may have the same size and address.
    assert len({seen[0], seen[2], seen[4]}) == 3
