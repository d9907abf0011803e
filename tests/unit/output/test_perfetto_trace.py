# SPDX-License-Identifier: Apache-2.0
"""The timeline, read back with the package that has its messages."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.errors import UnsupportedError
from batchprobe.output import perfetto_trace
from batchprobe.output.perfetto_trace import PerfettoWriter


class Slice(NamedTuple):
    """A slice as Perfetto shows it."""

    name: str
    start_ns: int
    end_ns: int
    depth: int


class Timeline:
    """A trace as Perfetto reads it: names are resolved in the order of the file, then packets are
    sorted by time, and an end belongs to the innermost open slice of its track.
    """

    def __init__(self, content: bytes) -> None:
        protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
        trace = protos.Trace()
        trace.ParseFromString(content)
        self.tracks: dict[int, Any] = {}
        self.slices: dict[int, list[Slice]] = {}
        self.instants: list[tuple[str, int]] = []
        self.args: dict[str, dict[str, object]] = {}
        names: dict[int, str] = {}
        arg_names: dict[int, str] = {}
        events = []
        for packet in trace.packet:
            assert packet.trusted_packet_sequence_id
            names.update({entry.iid: entry.name for entry in packet.interned_data.event_names})
            arg_names.update(
                {entry.iid: entry.name for entry in packet.interned_data.debug_annotation_names}
            )
            if packet.HasField("track_descriptor"):
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            if packet.HasField("track_event"):
                event = packet.track_event
                assert event.track_uuid in self.tracks
                name = names[event.name_iid] if event.name_iid else ""
                events.append((packet.timestamp, event, name))
                for annotation in event.debug_annotations:
                    value = getattr(annotation, annotation.WhichOneof("value"))
                    self.args.setdefault(name, {})[arg_names[annotation.name_iid]] = value
        events.sort(key=lambda entry: entry[0])
        open_slices: dict[int, list[tuple[str, int]]] = {}
        for at, event, name in events:
            stack = open_slices.setdefault(event.track_uuid, [])
            if event.type == event.TYPE_SLICE_BEGIN:
                stack.append((name, at))
            elif event.type == event.TYPE_SLICE_END:
                began, start = stack.pop()
                self.slices.setdefault(event.track_uuid, []).append(
                    Slice(began, start, at, len(stack))
                )
            else:
                assert event.type == event.TYPE_INSTANT
                self.instants.append((name, at))
        assert not any(open_slices.values())

    def track_of(self, tid: int) -> int:
        (uuid,) = (
            u for u, t in self.tracks.items() if t.HasField("thread") and t.thread.tid == tid
        )
        return uuid

    def of_thread(self, tid: int) -> list[Slice]:
        return sorted(self.slices[self.track_of(tid)], key=lambda s: (s.depth, s.start_ns))


@pytest.fixture
def out() -> io.BytesIO:
    pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    return io.BytesIO()


def call(writer: PerfettoWriter, name: str, start: int, end: int | None, *, tid: int = 7) -> None:
    duration = None if end is None else end - start
    writer.event(start, tid, 7, f"comm{tid}", 0, name, {}, duration)


def test_calls_nest_although_inner_ones_come_first(out: io.BytesIO) -> None:
    with PerfettoWriter(out) as writer:
        call(writer, "inner", 110, 120)
        call(writer, "other", 105, 300, tid=8)
        call(writer, "inner", 130, 140)
        call(writer, "outer", 100, 200)
        call(writer, "next", 200, 210)
    timeline = Timeline(out.getvalue())
    assert timeline.of_thread(7) == [
        ("outer", 100, 200, 0),
        ("next", 200, 210, 0),
        ("inner", 110, 120, 1),
        ("inner", 130, 140, 1),
    ]
    assert timeline.of_thread(8) == [("other", 105, 300, 0)]


def test_calls_of_a_coarse_clock_nest(out: io.BytesIO) -> None:
    with PerfettoWriter(out) as writer:
        call(writer, "leaf", 100, 100)
        call(writer, "inner", 100, 150)
        call(writer, "last", 150, 200)
        call(writer, "outer", 100, 200)
    assert Timeline(out.getvalue()).of_thread(7) == [
        ("outer", 100, 200, 0),
        ("inner", 100, 150, 1),
        ("last", 150, 200, 1),
        ("leaf", 100, 100, 2),
    ]


def test_threads_and_processes_have_names(out: io.BytesIO) -> None:
    with PerfettoWriter(out) as writer:
        writer.event(1, 12, 10, "worker", 0, "f", {}, 1)
        writer.event(2, 10, 10, "server", 0, "f", {}, 1)
        writer.event(4, 12, 10, "renamed", 0, "f", {}, 1)
        writer.event(5, 0, 0, "swapper/0", 0, "f", {}, 9)
        writer.event(6, 0, 0, "swapper/1", 1, "f", {}, 9)
    timeline = Timeline(out.getvalue())
    (process,) = (t for t in timeline.tracks.values() if t.HasField("process"))
    assert (process.process.pid, process.process.process_name) == (10, "server")
    for tid, name in ((10, "server"), (12, "renamed")):
        track = timeline.tracks[timeline.track_of(tid)]
        assert (track.thread.pid, track.thread.thread_name) == (10, name)
        assert track.parent_uuid == process.uuid
    # The idle tasks overlap.
    idle = [t for t in timeline.tracks.values() if t.name.startswith("swapper/")]
    assert [len(timeline.slices[track.uuid]) for track in idle] == [1, 1]


def test_args_keep_their_types(out: io.BytesIO) -> None:
    args: dict[str, object] = {
        "count": -1,
        "address": (1 << 64) - 1,
        "huge": 1 << 64,
        "ratio": 0.5,
        "is_sync": True,
        "path": "a\udc80",
        "error": None,
    }
    with PerfettoWriter(out) as writer:
        writer.event(1, 7, 7, "comm", 0, "f", args, 1)
    (found,) = Timeline(out.getvalue()).args.values()
    assert found == {
        **args,
        "cpu": 0,
        "huge": str(1 << 64),
        "path": r"a\udc80",
        "error": "None",
    }
    assert found["is_sync"] is True


def test_an_instant_has_no_duration(out: io.BytesIO) -> None:
    with PerfettoWriter(out) as writer:
        call(writer, "hit", 150, None)
        call(writer, "outer", 100, 200)
    timeline = Timeline(out.getvalue())
    assert timeline.instants == [("hit", 150)]
    assert timeline.of_thread(7) == [("outer", 100, 200, 0)]


def test_events_are_written_as_they_come(out: io.BytesIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto_trace, "_WINDOW", 10)
    writer = PerfettoWriter(out)
    sizes = []
    for at in range(1000):
        call(writer, f"f{at % 3}", 10 * at + 1, 10 * at + 9, tid=7 + at % 2)
        sizes.append(len(out.getvalue()))
    assert len(set(sizes)) == 101
    call(writer, "long", 0, 20_000)
    writer.close()
    timeline = Timeline(out.getvalue())
    assert len(timeline.of_thread(7)) == 501
    assert timeline.of_thread(7)[0] == ("long", 0, 20_000, 0)
    assert {found.depth for found in timeline.of_thread(7)[1:]} == {1}


def test_a_long_trace_takes_no_memory() -> None:
    pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    script = """
import os, resource
from batchprobe.output.perfetto_trace import PerfettoWriter
writer = PerfettoWriter(open(os.devnull, "wb"))
def peak(calls):
    for at in range(calls):
        writer.event(10 * at, 7, 7, "comm", 0, "vfs_read", {"count": at}, 9)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(-peak(10_000) + peak(50_000))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 16 << 10  # KiB


def test_a_trace_of_nothing_can_be_read(out: io.BytesIO) -> None:
    PerfettoWriter(out).close()
    assert not Timeline(out.getvalue()).tracks


def test_wrong_calls_are_refused(out: io.BytesIO) -> None:
    writer = PerfettoWriter(out)
    with pytest.raises(ValueError, match="-1 ns"):
        call(writer, "f", 2, 1)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        call(writer, "f", 1, 2)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "perfetto"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "perfetto", None)
    with pytest.raises(UnsupportedError) as caught:
        PerfettoWriter(io.BytesIO())
    assert caught.value.remedy.startswith(f"{sys.executable} -m pip install 'perfetto>=")
    assert isinstance(caught.value.__cause__, ImportError)


class Call(NamedTuple):
    """A call of a made-up thread: the ticks before its first inner call, and after each."""

    ticks: int
    inner: list[tuple[Call, int]]


CALLS = st.recursive(
    st.builds(Call, st.integers(0, 2), st.just([])),
    lambda inner: st.builds(
        Call, st.integers(0, 2), st.lists(st.tuples(inner, st.integers(0, 2)), max_size=3)
    ),
    max_leaves=30,
)


@given(st.lists(CALLS, min_size=1, max_size=4))
def test_any_calls_come_back_as_they_were_made(calls: list[Call]) -> None:
    pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    made: list[Slice] = []

    def run(one: Call, now: int, depth: int) -> int:
        start = now
        now += one.ticks
        for inner, after in one.inner:
            # Of two calls at one time, the first of which takes none, either may be the outer.
            now = max(run(inner, now, depth + 1) + after, now + 1)
        made.append(Slice(f"f{len(made)}", start, now, depth))
        return now

    now = 0
    for one in calls:
        now = run(one, now, 0) + 1
    out = io.BytesIO()
    with PerfettoWriter(out) as writer:
        for name, start, end, _ in made:
            call(writer, name, start, end)
    assert sorted(Timeline(out.getvalue()).of_thread(7)) == sorted(made)
