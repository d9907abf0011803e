# SPDX-License-Identifier: Apache-2.0
"""Errors: which errors functions return, how often, and to whom last."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from batchprobe._util.printable import printable
from batchprobe.actions.base import Action, Column, Reader
from batchprobe.actions.event_records import error_name
from batchprobe.actions.results import Results
from batchprobe.errors import KernelError
from batchprobe.filters.base import ProbeKind
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe
from batchprobe.programs.maps import CELL_SIZE, MapSpec, SlotLayout
from batchprobe.programs.probe_maps import Hits, ProbeMaps
from batchprobe.programs.source import read_bpf
from batchprobe.sys import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Errors", "Failure", "Failures"]

# count, ids, comm: struct failure of bpf/errors.h.
_FAILURE = struct.Struct("=QQ16s")
_MAX_FAILURES = 1 << 14


class Failure:
    """One error of one function: how often it came, and the task that got it last."""

    __slots__ = ("comm", "count", "error", "pid", "tid")

    def __init__(self, *, error: str, count: int, pid: int, tid: int, comm: str) -> None:
        self.error = error
        """Its name, such as `ENOSPC`."""
        self.count = count
        self.pid = pid
        self.tid = tid
        self.comm = comm

    def __repr__(self) -> str:
        return f"<Failure {self.count} {self.error}, last {self.comm} {self.pid}>"


class Failures(Mapping[str, Failure]):
    """The errors of one function by name."""

    __slots__ = ("_found",)

    def __init__(self, found: Mapping[str, Failure]) -> None:
        self._found = found

    def __getitem__(self, error: str) -> Failure:
        return self._found[error]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __sub__(self, earlier: Failures) -> Failures:
        """What came since."""
        found = {}
        for name, failure in self.items():
            was = earlier[name].count if name in earlier else 0
            if failure.count > was:
                found[name] = Failure(
                    error=name,
                    count=failure.count - was,
                    pid=failure.pid,
                    tid=failure.tid,
                    comm=failure.comm,
                )
        return Failures(found)

    def __repr__(self) -> str:
        return f"<Failures {dict(self)}>"


class Errors(Action):
    """Counts the errors that functions return: negative ints and longs, and error pointers."""

    name = "errors"
    unit = "functions"
    called = "errors"
    source = f"#include <uapi/linux/ptrace.h>\n{read_bpf('results.h', 'errors.h')}"
    kind = ProbeKind.RETURN

    def __init__(self) -> None:
        self._results = Results()

    def prepare(self, targets: Sequence[Target], symbols: KernelSymbols) -> Mapping[Target, str]:
        """Leave out functions that return no error."""
        return self._results.prepare(targets, symbols)

    @property
    def columns(self) -> Sequence[Column]:
        """A row is an error of a function."""
        return (
            Column("COUNT", lambda failure: failure.count),
            Column("ERROR", lambda failure: failure.error),
            Column("LAST PID", lambda failure: failure.pid),
            Column("LAST COMM", lambda failure: printable(failure.comm)),
        )

    def rows(self, value: Any) -> Sequence[Any]:
        """The errors of a function."""
        return list(value.values())

    def to_json(self, value: Any) -> object:
        """By name."""
        return {
            name: {"count": one.count, "pid": one.pid, "tid": one.tid, "comm": one.comm}
            for name, one in value.items()
        }

    def notes(self) -> Sequence[str]:
        """For which functions it was guessed what is an error."""
        return self._results.notes()

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """The errors of all slots, and what each function returns."""
        return [
            Results.map(layout.slots),
            MapSpec.array("failures_lost", layout.slots + 1),
            MapSpec(
                *("failures", bpf.BPF_MAP_TYPE_HASH, CELL_SIZE, _FAILURE.size, _MAX_FAILURES),
            ),
        ]

    def fill(
        self, maps: ProbeMaps, probes: Sequence[Probe], attach_type: int
    ) -> Iterable[tuple[Probe, KernelError]]:
        """Say what each function returns."""
        del attach_type
        self._results.fill(maps, probes)
        return ()

    def reader(self, maps: ProbeMaps) -> Reader:
        """Reads the errors of one kernel object."""
        return _Reader(maps)


class _Reader(Reader):
    def __init__(self, maps: ProbeMaps) -> None:
        self._maps = maps

    def snapshot(self, hits: Hits) -> _Values:
        del hits
        found: dict[int, dict[str, Failure]] = {}
        for key, value in self._maps.raw_items("failures", CELL_SIZE, _FAILURE.size):
            slot_and_error = int.from_bytes(key, sys.byteorder)
            slot, error = slot_and_error >> 32, slot_and_error & 0xFFFFFFFF
            count, ids, comm = _FAILURE.unpack(value)
            # Inserted, and not counted yet.
            if count:
                name = error_name(-error)
                found.setdefault(slot, {})[name] = Failure(
                    error=name,
                    count=count,
                    pid=ids >> 32,
                    tid=ids & 0xFFFFFFFF,
                    comm=comm.split(b"\0", 1)[0].decode(errors="backslashreplace"),
                )
        return _Values(found)

    def lost(self) -> int:
        """Errors for which there was no room."""
        lost = self._maps.arrays["failures_lost"]
        return sum(lost.cells) if lost is not None else 0


class _Values:
    """Failures by slot."""

    def __init__(self, found: Mapping[int, Mapping[str, Failure]]) -> None:
        self._found = found

    def __getitem__(self, slot: int) -> Failures:
        return Failures(self._found.get(slot, {}))
