# SPDX-License-Identifier: Apache-2.0
"""A timeline for https://ui.perfetto.dev: a track for each thread, a slice for each call.

The package perfetto has the messages; it is an extra, because protobuf comes with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from batchprobe.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Self

__all__ = ["PerfettoWriter", "require_perfetto"]

# As in pyproject.toml. The package asks for any protobuf, and refuses one that is older than this.
_REQUIREMENTS = ("perfetto>=0.16", "protobuf>=6.31.1")

_WINDOW = 4096
"""Events that are held back, to bring those of each thread into the order of their calls. That
matters only where an outer call and an inner one begin in the same nanosecond.
"""
# Of all packets: interned names are those of one sequence.
_SEQUENCE = 1


class _Call(NamedTuple):
    """One event; `end_ns` is None for an instant."""

    name: str
    cpu: int
    args: Mapping[str, object]
    start_ns: int
    end_ns: int | None


def require_perfetto() -> None:
    """Raise UnsupportedError if the package is missing."""
    _protos()


class PerfettoWriter:
    """Writes events as they come, and holds back some thousands of them.

    Times are those of bpf_ktime_get_ns(). Perfetto sorts by time, and takes what has the same time
    in the order of the file. `out` stays open.
    """

    def __init__(self, out: BinaryIO) -> None:
        """Raises UnsupportedError if the package is missing."""
        self._out = out
        self._protos = _protos()
        self._tracks: dict[tuple[int, int], int] = {}
        """The track of each pid and tid; of the idle task, of each CPU."""
        self._comms: dict[int, str] = {}
        """The last name of each track."""
        self._processes: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._arg_names: dict[str, int] = {}
        self._held: dict[int, list[_Call]] = {}
        self._held_count = 0
        self._is_closed = False
        self._trace = self._protos.Trace()
        first = self._packet()
        first.sequence_flags = self._protos.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        first.first_packet_on_sequence = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def event(
        self,
        time_ns: int,
        tid: int,
        pid: int,
        comm: str,
        cpu: int,
        name: str,
        args: Mapping[str, object],
        duration_ns: int | None,
    ) -> None:
        """A call that began at `time_ns`, or an instant if it has no duration.

        Those of a thread come in the order of their returns, so inner calls before the outer one.
        `args` are kept, and must not change. Raises ValueError if the writer is closed or the
        duration negative, OSError if the file cannot be written.
        """
        if self._is_closed:
            raise ValueError("the writer is closed")
        if duration_ns is not None and duration_ns < 0:
            raise ValueError(f"a call took {duration_ns} ns")
        end_ns = None if duration_ns is None else time_ns + duration_ns
        track = self._track(tid, pid, cpu, _utf8(comm))
        self._held.setdefault(track, []).append(_Call(name, cpu, args, time_ns, end_ns))
        self._held_count += 1
        if self._held_count >= _WINDOW:
            self._write()

    def close(self) -> None:
        """Write what was held back. Raises OSError."""
        if not self._is_closed:
            self._is_closed = True
            self._write()
            self._out.flush()

    def _write(self) -> None:
        for track, calls in self._held.items():
            for call, is_begin in _by_nesting(calls):
                self._track_event(track, call, is_begin=is_begin)
        self._held.clear()
        self._held_count = 0
        # Traces that follow each other in a file are one trace.
        content = self._trace.SerializeToString()
        # A new one, because protobuf keeps the memory of a message that is cleared.
        self._trace = self._protos.Trace()
        self._out.write(content)

    def _track(self, tid: int, pid: int, cpu: int, comm: str) -> int:
        """The track, which is described before its first event, and again after a change of name.

        The idle tasks of all CPUs have tid 0, so each CPU gets a track of its own.
        """
        key = (pid, tid) if tid else (-1, cpu)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = self._new_track()
        if self._comms.get(track) != comm:
            self._comms[track] = comm
            if tid and (pid == tid or pid not in self._processes):
                self._describe_process(pid, comm if pid == tid else "")
            self._describe_thread(track, tid, pid, comm)
        return track

    def _describe_process(self, pid: int, name: str) -> None:
        if pid not in self._processes:
            self._processes[pid] = self._new_track()
        descriptor = self._packet().track_descriptor
        descriptor.uuid = self._processes[pid]
        descriptor.process.pid = pid
        # The name of a process is that of its first thread.
        if name:
            descriptor.process.process_name = name

    def _describe_thread(self, track: int, tid: int, pid: int, comm: str) -> None:
        descriptor = self._packet().track_descriptor
        descriptor.uuid = track
        if tid:
            descriptor.parent_uuid = self._processes[pid]
            descriptor.thread.pid = pid
            descriptor.thread.tid = tid
            descriptor.thread.thread_name = comm
        else:
            descriptor.name = comm

    def _track_event(self, track: int, call: _Call, *, is_begin: bool) -> None:
        packet = self._packet()
        packet.sequence_flags = self._protos.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        event = packet.track_event
        event.track_uuid = track
        if call.end_ns is not None and not is_begin:
            packet.timestamp = call.end_ns
            event.type = event.TYPE_SLICE_END
            return
        packet.timestamp = call.start_ns
        event.type = event.TYPE_INSTANT if call.end_ns is None else event.TYPE_SLICE_BEGIN
        interned = packet.interned_data
        event.name_iid = _interned(call.name, self._names, interned.event_names)
        for name, value in {"cpu": call.cpu, **call.args}.items():
            annotation = event.debug_annotations.add()
            annotation.name_iid = _interned(name, self._arg_names, interned.debug_annotation_names)
            _set_value(annotation, value)

    def _packet(self) -> Any:
        packet = self._trace.packet.add()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet

    def _new_track(self) -> int:
        # 0 is Perfetto's default track.
        return len(self._tracks) + len(self._processes) + 1


def _protos() -> Any:
    try:
        # Only here, because it takes a while, and few machines have it.
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2  # noqa: PLC0415
    # Besides ImportError: protobuf has an error of its own for a package that is newer than itself.
    except Exception as error:
        wanted = " ".join(f"'{requirement}'" for requirement in _REQUIREMENTS)
        raise UnsupportedError(
            f"the Python package perfetto cannot be used: {error}",
            remedy=f"{sys.executable} -m pip install {wanted}",
        ) from error
    return perfetto_trace_pb2


def _by_nesting(calls: list[_Call]) -> Iterator[tuple[_Call, bool]]:
    """Begins (True) and ends of calls, or instants (False), of one thread that come in the order
    of their returns: each outer call begins before its inner ones, also where the clock is so
    coarse that they begin at the same time.
    """
    backwards: list[tuple[_Call, bool]] = []
    open_calls: list[_Call] = []
    for call in reversed(calls):
        # What returned before an outer call is inside it, if it began no earlier.
        while open_calls and call.start_ns < open_calls[-1].start_ns:
            backwards.append((open_calls.pop(), True))
        backwards.append((call, False))
        if call.end_ns is not None:
            open_calls.append(call)
    backwards.extend((call, True) for call in reversed(open_calls))
    return reversed(backwards)


def _interned(name: str, known: dict[str, int], entries: Any) -> int:
    """The number of a name. New ones are added to `entries` of the packet that uses them first."""
    number = known.get(name)
    if number is None:
        number = known[name] = len(known) + 1
        entries.add(iid=number, name=_utf8(name))
    return number


def _set_value(annotation: Any, value: object) -> None:
    if isinstance(value, bool):
        annotation.bool_value = value
    elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        annotation.int_value = value
    elif isinstance(value, int) and 0 <= value < 1 << 64:
        annotation.uint_value = value
    elif isinstance(value, float):
        annotation.double_value = value
    else:
        annotation.string_value = _utf8(str(value))


def _utf8(text: str) -> str:
    """The text without surrogates, which stand for bytes that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()
