# SPDX-License-Identifier: Apache-2.0
"""Known numbers of calls are counted exactly, by every probe ABI."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.machine import ABIS, MACHINE, PLACES, PREFIX, kinds
from helpers.workers import CALLS, Worker

from batchprobe import Probe, Session, arch
from batchprobe.kernel.kcore import Kcore
from batchprobe.programs.probe_maps import ProbeMaps
from batchprobe.sys import bpf, fds

# Since Linux 6.7.
REPORTS_MISSES = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 7)

PLACEMENTS = [
    *((abi, placement) for abi in ABIS for placement in PLACES if abi != "multi"),
    *((abi, "auto") for abi in ("auto", *ABIS)),
]


def counts(probes: list[Probe]) -> dict[str, int]:
    return {probe.label: probe.count for probe in probes}


@pytest.mark.parametrize(("abi", "placement"), PLACEMENTS)
def test_calls_from_all_cpus_are_counted_exactly(
    abi: str, placement: str, workers: list[Worker]
) -> None:
    labels = [f"syscall:{call}{kind}" for call in CALLS for kind in kinds(abi)]
    with Session(abi=abi, placement=placement) as session:
        probes = session.attach(labels)
        assert not session.skipped
        assert {probe.label for probe in probes} == set(labels)
        assert abi in ("auto", *(probe.abi for probe in probes))
        entries = {probe.placement for probe in probes if not probe.target.is_return}
        if placement != "auto":
            # On s390x a function may begin with an instruction that QEMU cannot step over.
            assert entries in ({placement}, {placement, "entry"} if MACHINE == "s390x" else ())

        for _ in range(10_000):
            os.sched_yield()
        alone = counts(probes)
        for worker in workers:
            worker.begin(CALLS, rounds=1_000)
        for worker in workers:
            assert worker.finish() == 1_000
        together = {probe.label: count for probe, count in session.counts().items()}
        report = session.detach_all()

    calls = {"syscall:sched_yield": 10_000, "syscall:sched_yield%return": 10_000}
    assert alone == {kind: calls.get(kind, 0) for kind in labels}
    assert together == {kind: calls.get(kind, 0) + 2_000 for kind in labels}
    assert counts(probes) == together
    assert session.missed() in (0, None)
    assert session.missed_in() == []
    assert (report.probes, report.barriers, report.failed) == (len(labels), 1, ())


@pytest.mark.parametrize("abi", ABIS)
def test_threads_are_counted_exactly(abi: str) -> None:
    with Session(abi=abi) as session:
        (probe,) = session.attach(["syscall:getsid"])
        threads = [
            threading.Thread(target=lambda: [os.getsid(0) for _ in range(500)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert probe.count == 2_000


@pytest.mark.parametrize("abi", [abi for abi in ABIS if abi != "multi"])
def test_probes_whose_buckets_are_taken_count_exactly(
    abi: str, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among many probes, some find their bucket taken by another instruction pointer."""
    make = ProbeMaps.__init__

    def take_buckets(maps: ProbeMaps, slots: int, **options: Any) -> None:
        make(maps, slots, **options)
        buckets = maps._buckets.cells
        buckets[:] = memoryview(array("Q", [1]) * len(buckets))

    monkeypatch.setattr(ProbeMaps, "__init__", take_buckets)
    labels = [f"syscall:{call}{kind}" for call in CALLS for kind in kinds(abi)]
    with Session(abi=abi) as session:
        probes = session.attach(labels)
        for worker in workers:
            worker.begin(CALLS, rounds=1_000)
        for worker in workers:
            assert worker.finish() == 1_000
        session.detach_all()
    assert counts(probes) == dict.fromkeys(labels, 2_000)


@pytest.mark.parametrize("abi", ABIS)
def test_namesakes_addresses_and_offsets_count_exactly(abi: str) -> None:
    """Many functions are called `type_show`; reading a network device's type runs one of them."""
    getsid = address_of(f"{PREFIX}getsid")
    entries = ["type_show", f"{getsid:#x}"]
    has_offset = abi != "multi" and "after" in PLACES
    if has_offset:
        entries.append(f"{PREFIX}getpgid+{boundary(f'{PREFIX}getpgid')}")
    kind = os.open("/sys/class/net/lo/type", os.O_RDONLY)
    with Session(abi=abi) as session:
        probes = session.attach(entries)
        namesakes = [probe for probe in probes if probe.target.name == "type_show"]
        assert len(namesakes) > 1
        for _ in range(300):
            os.pread(kind, 64, 0)
        for _ in range(200):
            os.getsid(0)
        for _ in range(100):
            os.getpgid(0)
        session.detach_all()
    os.close(kind)
    assert sorted(probe.count for probe in namesakes)[-2:] == [0, 300]
    others = [(probe.target.name, probe.count) for probe in probes if probe not in namesakes]
    assert others[0] == (f"{PREFIX}getsid", 200)
    assert others[1:] == ([] if not has_offset else [(f"{PREFIX}getpgid", 100)])


@pytest.mark.skipif(len(PLACES) < 2, reason="a function has one site here")
def test_one_site_named_in_two_ways_counts_for_both(workers: list[Worker]) -> None:
    """The probe of `NAME` must not take the site of `NAME+OFFSET`: both count."""
    call = f"{PREFIX}getpgid"
    for abi in ("event", "perf"):
        with Session(abi=abi) as session:
            probes = session.attach([call, f"{call}+{boundary(call)}", f"{call}%return"])
            assert len(probes) == 3, session.skipped
            workers[0].call(["getpgid"], rounds=100)
            session.detach_all()
        assert [probe.count for probe in probes] == [100, 100, 100], abi


def address_of(name: str) -> int:
    for line in Path("/proc/kallsyms").read_text().splitlines():
        if line.split()[2] == name:
            return int(line.split()[0], 16)
    raise AssertionError(f"no {name} here")


def boundary(name: str) -> int:
    """The offset after a function's patch site, which is an instruction boundary."""
    kcore = Kcore()
    code = kcore.read(address_of(name), 16)
    kcore.close()
    assert code, kcore.reason
    offset = arch.current().after_patch_site(code)
    assert offset, f"{name} has no patch site"
    return offset


# The system calls that the C library makes on this architecture.
MKDIR = "mkdirat" if MACHINE in {"aarch64", "riscv64"} else "mkdir"
RENAME = {"aarch64": "renameat", "riscv64": "renameat2"}.get(MACHINE, "rename")
FALLOCATE = "ia32_fallocate" if MACHINE == "i686" else "fallocate"

# How often one round of `file_work` calls each function; nothing else calls them meanwhile.
FILE_WORK = {
    "vfs_mkdir": 1,
    "vfs_symlink": 1,
    "vfs_link": 2,
    "vfs_rename": 1,
    "vfs_mknod": 1,
    "vfs_fallocate": 3,
    "shmem_mkdir": 1,
    "shmem_symlink": 1,
    "shmem_link": 2,
    "shmem_rmdir": 1,
    "shmem_fallocate": 3,
    "eventfd_write": 5,
    "eventfd_read": 1,
    "syscall:eventfd2": 1,
    f"syscall:{MKDIR}": 1,
    f"syscall:{RENAME}": 1,
    f"syscall:{FALLOCATE}": 3,
}


def file_work(folder: Path) -> None:
    """One round: FILE_WORK has the number of calls."""
    (folder / "directory").mkdir()
    (folder / "symbolic").symlink_to("nowhere")
    file = folder / "file"
    fd = os.open(file, os.O_CREAT | os.O_RDWR)
    for size in (1, 5_000, 10_000):
        os.posix_fallocate(fd, 0, size)
    os.close(fd)
    for name in ("hard", "harder"):
        (folder / name).hardlink_to(file)
    (folder / "hard").rename(folder / "harder still")
    os.mkfifo(folder / "fifo")
    counter = os.eventfd(0)
    for _ in range(5):
        os.eventfd_write(counter, 1)
    os.eventfd_read(counter)
    os.close(counter)
    for entry in list(folder.iterdir()):
        if entry.name == "directory":
            entry.rmdir()
        else:
            entry.unlink()


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    folder = Path("/dev/shm") / f"batchprobe-{os.getpid()}"  # noqa: S108 - a tmpfs is wanted
    folder.mkdir()
    yield folder
    folder.rmdir()


def test_all_abis_count_the_same(memory_folder: Path) -> None:
    rounds = 20
    seen: dict[str, dict[str, int]] = {}
    for abi in ABIS:
        with Session(abi=abi) as session:
            probes = session.attach(FILE_WORK)
            for _ in range(rounds):
                file_work(memory_folder)
            session.detach_all()
        seen[abi] = counts(probes)
    expected = {name: FILE_WORK[name] * rounds for name in seen["event"]}
    assert len(expected) >= len(FILE_WORK) - 3, "too few of these functions are on this kernel"
    assert seen == dict.fromkeys(ABIS, expected)


def miss_hits(abi: str) -> tuple[Session, Probe, Probe]:
    """Hits in bpf(2), which runs no program while it changes a map (bpf_disable_instrumentation()):
    the session, the probe of other calls, and the one that misses hits.
    """
    with Session(abi=abi) as session:
        calls, update = session.attach(["syscall:sched_yield", "htab_map_update_elem"])
        os.sched_yield()
        fd = bpf.map_create("test", bpf.BPF_MAP_TYPE_HASH, key_size=8, value_size=8, entries=64)
        try:
            for number in range(50):
                bpf.map_update(fd, number.to_bytes(8, "little"), bytes(8))
        finally:
            fds.close(fd)
        session.detach_all()
    assert (calls.count, update.count) == (1, 0)
    return session, calls, update


def test_the_kernel_reports_by_probe_what_was_missed() -> None:
    session, _, update = miss_hits("event")
    missed = session.missed()
    assert missed is not None
    assert missed >= 50
    assert session.missed_in()[0] is update


@pytest.mark.parametrize("abi", [abi for abi in ABIS if abi != "event"])
def test_a_link_reports_what_was_missed_since_linux_6_7(abi: str) -> None:
    """Hits that met another BPF program are the program's misses: no probe is named."""
    session, _, _ = miss_hits(abi)
    missed = session.missed()
    if REPORTS_MISSES:
        assert missed is not None
        assert missed >= 50
    else:
        assert missed is None
    assert session.missed_in() == []


@pytest.mark.skipif("entry" not in PLACES, reason="no return probes here")
@pytest.mark.usefixtures("guardian_ends")
@pytest.mark.parametrize("wait", [True, False])
def test_a_perf_kprobe_reports_by_probe_what_was_missed(wait: bool) -> None:
    """A return probe has room for some calls in progress, and misses the others."""
    with Session(abi="perf") as session:
        sleep, other = session.attach(["hrtimer_nanosleep%return", "syscall:getsid%return"])
        room = max(10, 2 * (os.cpu_count() or 1))
        threads = [threading.Thread(target=time.sleep, args=(2.0,)) for _ in range(room + 20)]
        for thread in threads:
            thread.start()
        os.getsid(0)
        for thread in threads:
            thread.join()
        before = session.missed()
        session.detach_all(wait=wait)
    assert other.count == 1
    # Some: how many calls it can follow is the choice of the kernel.
    assert 1 <= sleep.count < len(threads)
    if not REPORTS_MISSES:
        assert (before, session.missed(), session.missed_in()) == (None, None, [])
        return
    assert before == session.missed() == len(threads) - sleep.count
    assert session.missed_in() == [sleep]
