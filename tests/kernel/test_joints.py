# SPDX-License-Identifier: Apache-2.0
"""Actions and filters defined in this test go through attach, partial detach, commit and output.

They use only public names of the package, so what holds for them holds for any action and filter of
a user. The sinks and their Summary are the command's own and are not public.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from helpers.command import run
from helpers.machine import ABIS, BCC_COMPILES
from helpers.modules import DISKSIZE, MODULE, load, unload

from batchprobe import (
    Action,
    Filter,
    Hits,
    MapSpec,
    NothingAttachedError,
    ProbeKind,
    ProbeMaps,
    RawEvent,
    Reader,
    Session,
    SlotLayout,
    Snapshot,
    UnsupportedError,
    VerifierError,
)
from batchprobe.actions.latency import Latency
from batchprobe.output.base import Summary
from batchprobe.output.json_lines import JsonSink
from batchprobe.output.text import TextSink
from batchprobe.sys.files import RUN_FOLDER

pytestmark = pytest.mark.skipif(not BCC_COMPILES, reason="no working bcc here")

# Functions that only this test calls. The third argument of the first is the offset, that of the
# second the length.
FALLOCATE, FADVISE = "vfs_fallocate", "generic_fadvise"
RING = 64
TABLE = 'BPF_TABLE("array", u32, u64, sums, 1)'


class Sum(Action):
    """The sum of the third argument."""

    name = "sum"
    unit = "sums"
    source = """
BPF_ARRAY(sums, u64, 1);
static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u64 *sum = sums.lookup(&cell);
	if (sum)
		*sum += PT_REGS_PARM3(ctx);
}
"""

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        return [MapSpec.array("sums", layout.cells)]

    def reader(self, maps: ProbeMaps) -> Reader:
        return SumReader(maps)


class SumReader(Reader):
    def __init__(self, maps: ProbeMaps) -> None:
        self._maps = maps

    def snapshot(self, hits: Hits) -> Snapshot:
        sums = self._maps.arrays["sums"]
        assert sums is not None
        layout = self._maps.layout
        return [sum(sums.cells[slot :: layout.stride]) for slot in range(layout.slots + 1)]


class Last(Action):
    """An event per hit with the third argument, in a ring per CPU that drops the oldest."""

    name = "last"
    unit = "events"
    has_events = True
    source = """
struct last { u64 slot; u64 value; };
BPF_ARRAY(heads, u64, 1);
BPF_ARRAY(ring, struct last, 1);
static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	u32 cpu = bpf_get_smp_processor_id(), at;
	u64 *head = heads.lookup(&cpu);
	struct last *last;
	if (!head)
		return;
	at = cpu * 64 + (*head & 63);
	last = ring.lookup(&at);
	if (last) {
		last->slot = slot;
		last->value = PT_REGS_PARM3(ctx);
		*head += 1;
	}
}
"""

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        rings = MapSpec.array("ring", layout.cpus * RING, cells=2)
        return [MapSpec.array("heads", layout.cpus), rings]

    def reader(self, maps: ProbeMaps) -> Reader:
        return LastReader(maps)


class LastReader(Reader):
    def __init__(self, maps: ProbeMaps) -> None:
        self._maps = maps
        self._tails = [0] * maps.layout.cpus
        self._lost = 0

    def snapshot(self, hits: Hits) -> Snapshot:
        return hits

    def events(self) -> Iterator[RawEvent]:
        heads, ring = self._maps.arrays["heads"], self._maps.arrays["ring"]
        assert heads is not None
        assert ring is not None
        for cpu, tail in enumerate(self._tails):
            head = heads.cells[cpu]
            oldest = max(tail, head - RING)
            self._lost += oldest - tail
            self._tails[cpu] = head
            for at in range(oldest, head):
                cell = 2 * (cpu * RING + at % RING)
                yield ring.cells[cell], {"value": ring.cells[cell + 1]}

    def lost(self) -> int:
        return self._lost


class ThisProcess(Filter):
    """Accepts hits in one process."""

    name = "this_process"
    source = """
static inline int this_process(struct pt_regs *ctx)
{
	return bpf_get_current_pid_tgid() >> 32 == TARGET_TGID;
}
"""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def constants(self) -> Mapping[str, int]:
        return {"TARGET_TGID": self._pid}


class Listed(Filter):
    """Accepts hits whose third argument is in a hash map."""

    name = "listed"
    source = """
BPF_HASH(wanted, u64, u64, 1);
static inline int listed(struct pt_regs *ctx)
{
	u64 key = PT_REGS_PARM3(ctx);
	return wanted.lookup(&key) != 0;
}
"""

    def __init__(self, *values: int) -> None:
        self._values = values

    def maps(self) -> Sequence[MapSpec]:
        return [MapSpec.hash("wanted", len(self._values))]

    def fill(self, maps: ProbeMaps) -> None:
        for value in self._values:
            maps.set("wanted", value, 1)


class Failed(Filter):
    """Accepts calls that return a negative number."""

    name = "failed"
    kind = ProbeKind.RETURN
    source = """
static inline int failed(struct pt_regs *ctx)
{
	return (int)PT_REGS_RC(ctx) < 0;
}
"""


def test_a_filter_does_not_keep_latency_from_its_trial() -> None:
    """The trial makes calls that the filter rejects; without it, returns could be mixed up."""
    for kept in Path(RUN_FOLDER, "boot").glob("calls-*"):
        kept.unlink()
    said: list[str] = []
    with Session(action=Latency(), filters=[ThisProcess(1)], explain=said.append) as session:
        session.attach([FALLOCATE])
    assert not any("told apart by their function only" in line for line in said), said


@pytest.fixture
def fallocate(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """A function that calls vfs_fallocate() with each of its arguments as the offset."""
    with (tmp_path / "file").open("w+b") as file:

        def call(*offsets: int) -> None:
            for offset in offsets:
                os.posix_fallocate(file.fileno(), offset, 1)

        yield call


@pytest.fixture
def fadvise(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """A function that calls generic_fadvise() with each of its arguments as the length."""
    with (tmp_path / "other").open("w+b") as file:

        def call(*lengths: int) -> None:
            for length in lengths:
                os.posix_fadvise(file.fileno(), 0, length, os.POSIX_FADV_NORMAL)

        yield call


@pytest.mark.parametrize("abi", ABIS)
def test_an_action_from_attach_to_output(
    abi: str, fallocate: Callable[..., None], fadvise: Callable[..., None]
) -> None:
    action = Sum()
    text, lines = io.StringIO(), io.StringIO()
    sinks = [TextSink(text, action), JsonSink(lines, action)]
    with Session(action=action, abi=abi) as session:
        probes = session.attach([FALLOCATE, FADVISE])
        first, second = probes
        fallocate(1000, 200)
        fadvise(30, 4)
        assert session.snapshot() == {first: 1200, second: 34}
        assert session.counts() == {first: 2, second: 2}
        assert (first.value, first.count) == (1200, 2)
        # After a partial detach, this probe is final and the other one goes on.
        report = session.detach(first, commit=True)
        assert report is not None
        assert (report.probes, report.barriers, report.failed) == (1, 1, ())
        fallocate(5000)
        fadvise(600)
        assert session.snapshot() == {second: 634}

        def final() -> None:
            values = {probe: probe.value for probe in probes}
            for sink in sinks:
                sink.interval(1.5, values, values)
                sink.final(values)

        report = session.detach_all(final)
    assert [(probe.value, probe.count) for probe in probes] == [(1200, 2), (634, 3)]
    values = {probe: probe.value for probe in probes}
    sinks[1].end(Summary(values=values, hits={probe: probe.count for probe in probes}))
    table = "SUMS  FUNCTION\n1200  vfs_fallocate\n 634  generic_fadvise\n\n"
    assert text.getvalue() == f"after 1.5 s\n{table}{table}"
    interval, end, summary = [json.loads(line) for line in lines.getvalue().splitlines()]
    sums = {FALLOCATE: 1200, FADVISE: 634}
    assert (interval["sums"], end["sums"], summary["sums"]) == (sums, sums, sums)
    assert summary["hits"] == {FALLOCATE: 2, FADVISE: 3}


@pytest.mark.parametrize("abi", ABIS)
def test_every_event_of_a_detached_probe_is_delivered(
    abi: str, fallocate: Callable[..., None]
) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with Session(action=Last(), abi=abi) as session:
            (probe,) = session.attach([FALLOCATE])
            fallocate(3, 1, 2)
            found = [(event.probe, event.fields["value"]) for event in session.events()]
            assert found == [(probe, 3), (probe, 1), (probe, 2)]
            assert list(session.events()) == []
            fallocate(*range(RING + 10))
            fallocate(7)
            seen: list[object] = []
            session.detach(probe)
            session.commit(lambda: seen.extend(e.fields["value"] for e in session.events()))
            assert seen == [*range(11, RING + 10), 7]
            # Events that did not fit are reported: delivered plus lost equals hits.
            assert session.lost() == 11
            assert probe.count == 3 + len(seen) + 11
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("abi", ABIS)
def test_filters_decide_which_hits_count(abi: str, fallocate: Callable[..., None]) -> None:
    filters = [ThisProcess(os.getpid()), Listed(5, 7)]
    with Session(action=Sum(), filters=filters, abi=abi) as session:
        (probe,) = session.attach([FALLOCATE])
        child = os.fork()
        if not child:
            fallocate(5, 5, 5)
            os._exit(0)
        os.waitpid(child, 0)
        fallocate(5, 6, 7, 7)
        session.detach_all()
        missed = session.missed()
    assert (probe.count, probe.value) == (3, 19)
    # A hit that a filter rejects ran the program, so it does not count as missed.
    assert missed in (0, None)


@pytest.mark.parametrize("abi", ABIS)
def test_only_calls_that_return_an_error(abi: str, tmp_path: Path) -> None:
    """A filter on the result turns the entries into return probes."""
    with Session(filters=[Failed()], abi=abi) as session, (tmp_path / "file").open("w+b") as file:
        (probe,) = session.attach([FALLOCATE, f"{FADVISE}+4"])
        assert probe.label == f"{FALLOCATE}%return"
        assert "return probes are needed" in session.skipped[0].message
        for length in (1, 0, 2, 0, 0):
            if length:
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                with pytest.raises(OSError, match="Invalid argument"):
                    os.posix_fallocate(file.fileno(), 0, length)
        session.detach_all()
    assert probe.count == 3


def test_hits_in_a_module_that_is_loaded_later() -> None:
    """They are counted and tested by filters before they are claimed. An action with C of its own
    does not run for them, so they are reported as lost.
    """
    entries = [f"{MODULE}:disksize_show"]
    unload()
    with (
        Session(action=Sum(), abi="event") as session,
        Session(filters=[ThisProcess(1)], abi="event") as rejecting,
    ):
        (probe,), (rejected,) = session.attach(entries), rejecting.attach(entries)
        load()
        try:
            DISKSIZE.read_text()
            assert (session.counts()[probe], session.lost()) == (1, 1)
            assert rejecting.counts()[rejected] == 0
            DISKSIZE.read_text()
            session.detach_all()
            rejecting.detach_all()
        finally:
            unload()
    assert (probe.count, session.lost(), rejected.count) == (2, 1, 0)
    assert (session.missed(), rejecting.missed()) == (0, 0)


def test_a_filter_and_an_action_that_do_not_go_together() -> None:
    class EntriesOnly(Sum):
        kind = ProbeKind.ENTRY

    with pytest.raises(ValueError, match="failed needs return probes"):
        Session(action=EntriesOnly(), filters=[Failed()])


def test_a_constant_that_the_compiler_folds_is_an_error() -> None:
    class Folded(ThisProcess):
        source = ThisProcess.source.replace("TARGET_TGID", "TARGET_TGID + 1")

    with (
        Session(filters=[Folded(1)]) as session,
        pytest.raises(UnsupportedError, match="has no operand TARGET_TGID"),
    ):
        session.attach([FALLOCATE])


@pytest.mark.parametrize("abi", ABIS)
def test_the_verifiers_log_reaches_the_user(abi: str) -> None:
    class Unchecked(Sum):
        source = Sum.source.replace("if (sum)", "")

    said: list[str] = []
    with Session(action=Unchecked(), abi=abi, explain=said.append) as session:
        with pytest.raises(NothingAttachedError) as caught:
            session.attach([FALLOCATE])
        cause = caught.value.__cause__
        assert isinstance(cause, VerifierError)
        assert "invalid mem access" in cause.log
        assert any("invalid mem access" in line for line in said)


def test_verbose_reports_what_was_tried() -> None:
    done = run("attach", "-", "-d", "0", "-v", stdin="vfs_read\nvfs_read+0xffff\n")
    assert done.status == 0, done
    abi = "multi" if "multi" in ABIS else "event"
    assert f"trying the ABI {abi} for 1 of 1 probe" in done.stderr
    quiet = run("attach", "-", "-d", "0", stdin="vfs_read\n")
    assert "trying the ABI" not in quiet.stderr


@pytest.mark.parametrize("abi", ABIS)
def test_a_reader_that_fails_keeps_no_probe_attached(
    abi: str, fallocate: Callable[..., None]
) -> None:
    class Broken(Last):
        def reader(self, maps: ProbeMaps) -> Reader:
            return BrokenReader(maps)

    class BrokenReader(LastReader):
        def final(self, slots: Sequence[int], hits: Hits) -> Snapshot:
            raise RuntimeError("no values")

        def events(self) -> Iterator[RawEvent]:
            raise RuntimeError("no events")

    with Session(action=Broken(), abi=abi) as session:
        (probe,) = session.attach([FALLOCATE])
        fallocate(1, 2)
        report = session.detach_all()
        assert (report.probes, report.failed, session.probes) == (1, (), [])
        assert probe.count == 2
        with pytest.raises(RuntimeError, match="no values"):
            probe.value  # noqa: B018
        with pytest.raises(RuntimeError, match="no events"):
            list(session.events())
        assert list(session.events()) == []


@pytest.mark.parametrize("abi", ABIS)
def test_a_session_whose_maps_cannot_be_filled_leaves_nothing(abi: str) -> None:
    """No descriptor and no map stays: the fixture `leaves_nothing` checks it."""

    class NoReader(Sum):
        def reader(self, maps: ProbeMaps) -> Reader:
            raise RuntimeError("no reader")

    class Unlisted(Sum):
        def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
            return []

    class Overfull(Listed):
        def maps(self) -> Sequence[MapSpec]:
            return [MapSpec.hash("wanted", 1)]

    for session, error, words in (
        (Session(action=NoReader(), abi=abi), RuntimeError, "no reader"),
        (Session(action=Unlisted(), abi=abi), ValueError, r"declares sums, and no maps\(\) lists"),
        (Session(filters=[Overfull(1, 2)], abi=abi), NothingAttachedError, "none of the probes"),
    ):
        with session, pytest.raises(error, match=words) as caught:
            session.attach([FALLOCATE])
    assert "E2BIG" in str(caught.value.__cause__)


def test_a_map_that_is_declared_in_another_way_is_an_error() -> None:
    class Table(Sum):
        source = Sum.source.replace("BPF_ARRAY(sums, u64, 1)", TABLE)

    with (
        Session(action=Table()) as session,
        pytest.raises(UnsupportedError, match="declare maps as BPF_ARRAY"),
    ):
        session.attach([FALLOCATE])
