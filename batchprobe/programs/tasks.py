# SPDX-License-Identifier: Apache-2.0
"""Programs that see tasks come and go, at tracepoints of the kernel.

Those that need the thread ID of another task read it at its offset in struct task_struct. Where the
kernel has no BTF, they are programs of trace events, whose records tracefs describes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from batchprobe import arch
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.kernel.btf import kernel_btf
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.programs.program import FIELD_AT, Program
from batchprobe.programs.shipped import shipped
from batchprobe.programs.source import tasks
from batchprobe.sys import bpf, fds, perf

__all__ = ["SECTION", "TaskPrograms"]

SECTION = "tasks"
"""These programs among the shipped ones."""


class TaskPrograms:
    """Programs of bpf/tree.c and bpf/threads.c, which run until `close`."""

    def __init__(self, maps: Mapping[str, int]) -> None:
        """`maps` are descriptors by the names that the programs use."""
        self._maps = maps
        self._fds: list[int] = []
        self._offset: int | None = None
        programs = shipped(arch.current(), SECTION, lambda: tasks().text)
        if programs is None:
            from batchprobe.programs.compiler import compile_now  # noqa: PLC0415  (rarely needed)

            programs = compile_now(tasks())
        self._programs: Mapping[str, Program] = programs

    def run(self, name: str, tracepoint: str, **values: int) -> None:
        """Run a program at a raw tracepoint. Raises KernelError."""
        program = self._load(name, bpf.PROG_TYPE_RAW_TRACEPOINT, values)
        self._fds.append(bpf.raw_tracepoint(tracepoint, program))

    def run_with_pid(self, name: str, tracepoint: str, field: str, *, group: str = "sched") -> None:
        """Run a program that needs the ID of another task; `field` of the trace event has it, which
        is in `group`.

        Raises KernelError, or UnsupportedError where neither BTF nor tracefs can be read.
        """
        try:
            offset = self._task_pid_at()
        except UnsupportedError:
            self._run_by_event(f"{name}_event", group, tracepoint, field)
        else:
            self.run(name, tracepoint, TASK_PID_AT=offset)

    def _task_pid_at(self) -> int:
        if self._offset is None:
            with kernel_btf() as btf:
                self._offset = btf.offset("task_struct", "pid")
        return self._offset

    def _run_by_event(self, name: str, group: str, event: str, field: str) -> None:
        tracefs = Tracefs.find()
        values = {FIELD_AT: _field_at(tracefs.event_format(group, event), field)}
        fd = perf.open_tracepoint(tracefs.event_id(group, event))
        self._fds.append(fd)
        perf.enable(fd, self._load(name, bpf.PROG_TYPE_TRACEPOINT, values))

    def _load(self, name: str, kind: int, values: Mapping[str, int]) -> int:
        fd = self._programs[name].load({**self._maps, **values}, prog_type=kind)
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """End the programs."""
        while self._fds:
            fds.close(self._fds.pop())


def _field_at(text: str, field: str) -> int:
    """Where a field is in the record of a trace event, from the event's file "format"."""
    found = re.search(rf"\b{field};\toffset:(\d+);", text)
    if found is None:
        raise KernelError(f"a trace event has no field {field}", 0)
    return int(found[1])
