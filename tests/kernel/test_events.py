# SPDX-License-Identifier: Apache-2.0
"""Events: what they say of known calls, which are wanted, and that each hit is accounted for."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.command import run
from helpers.machine import ABIS, MACHINE, PREFIX, kinds

from batchprobe import Event, Probe, Session
from batchprobe.actions import events as events_module
from batchprobe.actions.events import CallEvents, EventCounts, Events
from batchprobe.filters.pid import Pid

HAS_TYPES = Path("/sys/kernel/btf/vmlinux").exists()
needs_types = pytest.mark.skipif(not HAS_TYPES, reason="this kernel has no BTF")

# long vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
FALLOCATE = "vfs_fallocate"
READ = "vfs_read"
GETSID = "syscall:getsid"
KEEP_SIZE = 1
UNKNOWN_MODE = 1 << 30
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(params=ABIS)
def abi(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def returns(abi: str) -> None:
    if "%return" not in kinds(abi):
        pytest.skip("this kernel refuses return probes, which stand at the entry")


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("events")
    yield fd
    os.close(fd)


def ours(action: Events, abi: str = "auto") -> Session:
    return Session(action=action, abi=abi, filters=[Pid(os.getpid())])


def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """0, or the error."""
    call = getattr(libc, "fallocate64", libc.fallocate)
    done = call(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    return ctypes.get_errno() if done else 0


def args(event: Event) -> Any:
    return event.fields["args"]


def check(probes: Sequence[Probe]) -> None:
    """Every hit has become something."""
    for probe in probes:
        found: EventCounts = probe.value
        parts = (getattr(found, name) for name in EventCounts.names())
        assert sum(parts) == probe.count, found


@needs_types
def test_arguments_are_those_of_the_call(abi: str, file: int) -> None:
    with ours(Events(), abi) as session:
        (probe,) = session.attach([FALLOCATE])
        before = time.time()
        for number in range(1, 6):
            assert fallocate(file, KEEP_SIZE, 4096 * number, 512 * number) == 0
        found = list(session.events())
        after = time.time()
        session.detach_all()
    assert [args(event)["offset"] for event in found] == [4096 * n for n in range(1, 6)]
    assert [args(event)["len"] for event in found] == [512 * n for n in range(1, 6)]
    for event in found:
        assert list(args(event)) == ["file", "mode", "offset", "len"]
        assert args(event)["mode"] == KEEP_SIZE
        assert int(args(event)["file"], 16) > 1 << 32
        assert event.probe is probe
        fields: Any = event.fields
        assert before - 1 <= fields["time"] <= after + 1
        assert (fields["pid"], fields["tid"]) == (os.getpid(), threading.get_native_id())
        assert fields["comm"] == Path("/proc/self/comm").read_text().strip()
        assert 0 <= fields["cpu"] < (os.cpu_count() or 1)
    assert probe.value.emitted == probe.count == 5
    check([probe])


@needs_types
@pytest.mark.skipif(MACHINE not in {"x86_64", "aarch64"}, reason="no wrappers of system calls")
def test_system_calls_have_their_own_arguments(abi: str) -> None:
    with ours(Events(where="pid == 1"), abi) as session:
        session.attach(["syscall:getsid", "syscall:getpgid"])
        os.getsid(0)
        os.getsid(1)
        os.getpgid(1)
        session.detach_all()
        found = [(event.probe.label, args(event)) for event in session.events()]
    assert found == [("syscall:getsid", {"pid": 1}), ("syscall:getpgid", {"pid": 1})]


def test_without_types_the_registers_are_shown(abi: str, file: int) -> None:
    """Where the kernel has types, an offset is without: the arguments are known at the entry."""
    action = Events()
    with ours(action, abi) as session:
        (probe,) = session.attach([FALLOCATE])
        assert bool(action.untyped) is not HAS_TYPES
        assert fallocate(file, KEEP_SIZE, 0, 4096) == 0
        session.detach_all()
        (event,) = session.events()
    if not HAS_TYPES:
        assert action.untyped[probe.label].startswith("this kernel has no BTF")
        assert "without types" in action.notes()[0]
        assert int(args(event)["arg1"], 16) & 0xFFFFFFFF == KEEP_SIZE
    check([probe])


def test_every_event_of_a_detached_probe_is_delivered(abi: str) -> None:
    with ours(Events(), abi) as session:
        first, second = session.attach([GETSID, "syscall:getpgid"])
        for _ in range(1_000):
            os.getsid(0)
            os.getpgid(0)
        session.detach(first, commit=True)
        for _ in range(10):
            os.getsid(0)
            os.getpgid(0)
        found = list(session.events())
        session.detach_all()
        found += session.events()
    by_probe = [[event for event in found if event.probe is probe] for probe in (first, second)]
    assert [len(events) for events in by_probe] == [1_000, 1_010]
    for events in by_probe:
        times: list[Any] = [event.fields["time_ns"] for event in events]
        assert times == sorted(times)
    check([first, second])


@needs_types
@pytest.mark.usefixtures("returns")
def test_calls_have_their_own_result_and_duration(abi: str, file: int) -> None:
    with ours(CallEvents(), abi) as session:
        (probe,) = session.attach([FALLOCATE])
        errors = [
            fallocate(file, KEEP_SIZE, 0, 4096),
            fallocate(file, 0, 0, 0),
            fallocate(file, UNKNOWN_MODE, 0, 4096),
        ]
        report = session.detach_all()
        found = list(session.events())
    assert report.barriers == 1
    assert errors == [0, errno.EINVAL, errno.EOPNOTSUPP]
    assert [event.fields["result"] for event in found] == [-error for error in errors]
    assert [event.fields.get("error") for event in found] == [None, "EINVAL", "EOPNOTSUPP"]
    assert [args(event)["len"] for event in found] == [4096, 0, 4096]
    assert all(0 < int(str(event.fields["duration_ns"])) < 10**10 for event in found)
    check([probe])


@needs_types
@pytest.mark.usefixtures("returns")
def test_results_of_threads_do_not_mix(abi: str) -> None:
    """Each thread reads another number of bytes, and the result is that number."""
    zero = os.open("/dev/zero", os.O_RDONLY)

    def work(size: int) -> None:
        for _ in range(200):
            os.read(zero, size)

    with ours(CallEvents(where="count < 100"), abi) as session:
        (probe,) = session.attach([READ])
        threads = [threading.Thread(target=work, args=(size,)) for size in (10, 20, 30, 40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.detach_all()
        found = list(session.events())
    os.close(zero)
    check([probe])
    assert probe.value.lost == 0
    sizes = [args(event)["count"] for event in found]
    assert [event.fields["result"] for event in found] == sizes
    # A return that the kernel missed has no event.
    assert len(found) == 800 - probe.value.missed - probe.value.unfinished
    assert {event.fields["tid"] for event in found} == {thread.native_id for thread in threads}


@needs_types
def test_a_condition_decides_in_the_kernel_as_its_values_say(file: int) -> None:
    inode = os.fstat(file).st_ino
    cases = {
        "len > 4096": [8192, 1 << 20],
        "len > 4k && len <= 8k": [8192],
        "offset == 4096 || len == 1": [1, 4096, 8192, 1 << 20],
        "!(mode == 0)": [1, 4096, 8192, 1 << 20],
        "mode & 2": [],
        f"file.f_inode.i_ino == {inode}": [1, 4096, 8192, 1 << 20],
        f"file->f_inode->i_ino != {inode}": [],
        "offset > -1 && offset < 4097": [1, 4096, 8192, 1 << 20],
    }
    for condition, wanted in cases.items():
        with ours(Events(where=condition)) as session:
            (probe,) = session.attach([FALLOCATE])
            for length in (1, 4096, 8192, 1 << 20):
                assert fallocate(file, KEEP_SIZE, 4096, length) == 0
            session.detach_all()
            found = [args(event)["len"] for event in session.events()]
        assert found == wanted, condition
        assert probe.value.unwanted == 4 - len(wanted)
        check([probe])


@needs_types
@pytest.mark.skipif("%return" not in kinds("auto"), reason="no return probes here")
def test_conditions_on_results_and_durations(file: int) -> None:
    cases = {
        "result < 0": [0, 4096],
        "result == -EINVAL": [0],
        "len == 4096 || result == -EINVAL": [4096, 0, 4096],
        "result == 0 && duration < 3600s": [4096],
        "duration > 3600s": [],
    }
    for condition, wanted in cases.items():
        with ours(CallEvents(where=condition)) as session:
            (probe,) = session.attach([FALLOCATE])
            fallocate(file, KEEP_SIZE, 0, 4096)
            fallocate(file, 0, 0, 0)
            fallocate(file, UNKNOWN_MODE, 0, 4096)
            session.detach_all()
            found = [args(event)["len"] for event in session.events()]
        assert found == wanted, condition
        check([probe])


@needs_types
def test_paths_are_read_through_pointers(file: int) -> None:
    # The last one is an array in the struct.
    file_system = "file.f_inode.i_sb.s_id"
    paths = ["file.f_inode.i_ino", "file.f_path.dentry.d_name.name", file_system]
    action = Events(arguments=paths)
    with ours(action) as session:
        session.attach([FALLOCATE])
        fallocate(file, KEEP_SIZE, 0, 4096)
        session.detach_all()
        (event,) = session.events()
    assert args(event)["file.f_inode.i_ino"] == os.fstat(file).st_ino
    assert args(event)["file.f_path.dentry.d_name.name"] == "memfd:events"
    assert args(event)[file_system] == "tmpfs"


@needs_types
def test_functions_without_the_argument_are_skipped_with_the_reason() -> None:
    with ours(Events(where="len > 1")) as session:
        probes = session.attach([FALLOCATE, "vfs_statx", "vfs_[ft]*"])
        skipped = {skip.entry: skip.message for skip in session.skipped}
        assert FALLOCATE in [probe.label for probe in probes]
        assert "no argument named len" in skipped["vfs_statx"]
        assert any("without" in reason.value for reason in session.omitted)


@needs_types
def test_texts_are_those_of_user_space_too() -> None:
    action = Events(where="dfd == -100")
    with ours(action) as session:
        session.attach(["do_sys_openat2"])
        name = "/nonexistent/ÿ\n"
        with pytest.raises(FileNotFoundError):
            os.open(name, os.O_RDONLY)
        session.detach_all()
        (event,) = session.events()
    assert args(event)["filename"] == name
    assert args(event)["dfd"] == -100


def test_a_full_ring_loses_events_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_RING_BYTES", os.sysconf("SC_PAGE_SIZE"))
    with ours(Events()) as session:
        (probe,) = session.attach([GETSID])
        for _ in range(5_000):
            os.getsid(0)
        lost = session.lost()
        session.detach_all()
        found = list(session.events())
    assert lost == probe.value.lost > 0
    assert len(found) == probe.value.emitted > 0
    check([probe])


def test_a_limit_acts_in_the_kernel() -> None:
    with ours(Events(limit=10)) as session:
        (probe,) = session.attach([GETSID])
        for _ in range(100):
            os.getsid(0)
        session.detach_all()
        assert len(list(session.events())) == 10
    assert (probe.value.emitted, probe.value.limited) == (10, 90)
    check([probe])


def test_lost_events_are_no_part_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_RING_BYTES", os.sysconf("SC_PAGE_SIZE"))
    limit = 3_000
    with ours(Events(limit=limit)) as session:
        (probe,) = session.attach([GETSID])
        for _ in range(10 * limit):
            os.getsid(0)
        assert session.lost()
        found = list(session.events())
        assert 0 < len(found) < limit
        for _ in range(limit):
            if len(found) >= limit:
                break
            for _ in range(10):
                os.getsid(0)
            found += session.events()
        os.getsid(0)
        session.detach_all()
        found += session.events()
    assert len(found) == probe.value.emitted == limit
    assert probe.value.limited
    check([probe])


def test_a_rate_acts_in_the_kernel() -> None:
    began = time.monotonic()
    with ours(Events(rate=5)) as session:
        (probe,) = session.attach([GETSID])
        for _ in range(1_000):
            os.getsid(0)
        session.detach_all()
    seconds = time.monotonic() - began
    assert 5 <= probe.value.emitted <= 5 * (seconds + 2)
    assert probe.value.limited == 1_000 - probe.value.emitted
    check([probe])


@pytest.mark.one_kernel
def test_the_command_prints_lines_and_ends_after_the_limit() -> None:
    code = "import os; [os.getsid(0) for _ in range(50)]"
    done = run("trace", GETSID, "-n", "3", "-c", f"python3 -I -S -c '{code}'")
    title, *lines = done.stdout.splitlines()
    assert title.split() == ["TIME", "CPU", "PID", "COMM", "CALL"]
    assert len(lines) == 3
    assert all(f"{PREFIX}getsid(" in line or f"{GETSID}(" in line for line in lines)


@needs_types
@pytest.mark.one_kernel
def test_json_has_an_event_a_line_and_the_sums() -> None:
    code = 'import os; fd = os.memfd_create("x"); os.posix_fallocate(fd, 0, 4096)'
    done = run("trace", "-r", FALLOCATE, "--json", "-c", f"python3 -I -S -c '{code}'")
    if "%return" not in kinds("auto"):
        return
    events = [record for record in done.records if record["type"] == "event"]
    (event,) = events
    assert event["function"] == FALLOCATE
    assert event["args"]["len"] == 4096
    assert event["result"] == 0
    assert done.summary["functions"][FALLOCATE] == {"emitted": 1}


@pytest.mark.one_kernel
def test_a_bad_condition_is_shown_with_its_place() -> None:
    done = run("trace", FALLOCATE, "--where", "len >")
    assert done.status == 2
    assert "^" in done.stderr
