# SPDX-License-Identifier: Apache-2.0
"""Attach and detach through the libraries, and the floors: the kernel's interfaces alone."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bcc import BPF

from _bench.functions import FunctionSet
from _bench.jobs import BATCHPROBE, BCC, EVENT_FLOOR, LINK
from batchprobe import Session
from batchprobe.functions.table import Function
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys import bpf, fds, libc, perf

Values = dict[str, float]

_BCC_PROGRAM = """
BPF_ARRAY(counts, u64, 1);
int hit(struct pt_regs *ctx) { counts.increment(0); return 0; }
"""
# Attached and detached before the measurement, so that symbols are read and programs are loaded.
# bcc's compilation is not measured either.
_READY = "vfs_statfs"
# The guardian starts Python after the first attach. Where one thread emulates all CPUs, that would
# slow the next attach.
_SETTLED_SECONDS = 3.0
_EXPEDITED = Path("/sys/kernel/rcu_expedited")
_WRITE_SIZE = 64 << 10
_GROUP = "bench_floor"


class Calls:
    """Runs the tools on one function set. The floors use the sites that batchprobe chose."""

    def __init__(self, chosen: FunctionSet) -> None:
        self._functions = chosen.functions
        # Where the probes of each ABI stood.
        self._places: dict[str, list[int]] = {}

    def run(self, tool: str) -> Values:
        """Attach and detach all functions once."""
        if tool == BCC:
            return _bcc(self._functions)
        if tool == LINK:
            return _link_floor(self._places.get("multi") or [f.address for f in self._functions])
        if tool == EVENT_FLOOR:
            return _event_floor(self._places["event"])
        return self._batchprobe(tool.removeprefix(BATCHPROBE).strip() or "auto")

    def _batchprobe(self, abi: str) -> Values:
        names = [function.name for function in self._functions]
        values: Values = {}
        with Session(abi=abi) as session:
            with _timed(values, "start"):
                first = session.attach([_READY])
            session.detach(first, commit=True)
            time.sleep(_SETTLED_SECONDS)
            with _timed(values, "attach"):
                probes = session.attach(names)
            values["attached"] = len(probes)
            for used in {probe.abi for probe in probes}:
                self._places[used] = []
            # In the order in which a trace event lists them.
            for probe in sorted(probes, key=lambda probe: probe.placement != "entry"):
                self._places[probe.abi].append(probe.address or 0)
                placed = f"placed {probe.abi} {probe.placement}"
                values[placed] = values.get(placed, 0) + 1
            values["grace"] = grace_period()
            began = time.perf_counter()
            final: list[float] = []
            report = session.detach_all(lambda: final.append(time.perf_counter() - began))
            values["detach"] = time.perf_counter() - began
        if report.failed:
            raise RuntimeError(f"not removed: {report.failed}")
        values["final"] = final[0]
        values["top"] = report.top_seconds
        values["barrier"] = report.barrier_seconds
        values["reclaim"] = report.reclaim_seconds
        return values


@contextlib.contextmanager
def _timed(values: Values, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    values[name] = time.perf_counter() - began


def grace_period() -> float:
    """Seconds of an ordinary synchronize_rcu(), the median of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        libc.membarrier_global()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


_bcc_program: BPF | None = None


def bcc_program() -> BPF:
    """bcc's object with its program loaded, compiled once."""
    global _bcc_program  # noqa: PLW0603
    if _bcc_program is None:
        _bcc_program = BPF(text=_BCC_PROGRAM, cflags=["-w"])
        _bcc_program.load_func("hit", BPF.KPROBE)
    return _bcc_program


def _bcc(functions: Sequence[Function]) -> Values:
    """Attach and detach one by one, as bcc's tools do."""
    bpf = bcc_program()
    values: Values = {}
    attached = []
    with _timed(values, "attach"):
        for function in functions:
            try:
                bpf.attach_kprobe(event=function.name, fn_name="hit")
            except Exception as error:  # bcc raises this and no other
                print(f"bcc: {function.name}: {error}", file=sys.stderr)
            else:
                attached.append(function.name)
    values["attached"] = len(attached)
    with _timed(values, "detach"):
        for name in attached:
            bpf.detach_kprobe(event=name)
    return values


@contextlib.contextmanager
def idle_program(attach_type: int = 0) -> Iterator[int]:
    """The fd of a program that does nothing."""
    program = bpf.prog_load("nothing", bpf.RETURN_0, attach_type=attach_type)
    try:
        yield program
    finally:
        fds.close(program)


def _link_floor(addresses: Sequence[int]) -> Values:
    """One kprobe_multi link with a program that does nothing: one system call, and one close."""
    values: Values = {"attached": len(addresses)}
    with idle_program(bpf.BPF_TRACE_KPROBE_MULTI) as program:
        with _timed(values, "attach"):
            link = bpf.kprobe_multi_link(program, list(addresses))
        with _timed(values, "detach"):
            fds.close(link)
    return values


def _event_floor(places: Sequence[int]) -> Values:
    """One trace event on these sites, defined in large writes, with a program that does nothing."""
    tracefs = Tracefs.find()
    text = _text_address()
    # batchprobe has attached these sites, so the kernel takes every line.
    lines = [f"p:{_GROUP}/all _text+{place - text}\n" for place in places]
    values: Values = {"attached": len(lines)}
    with idle_program() as program:
        with _timed(values, "define"):
            _write_commands(tracefs, "".join(lines))
        try:
            with _timed(values, "arm"):
                fd = perf.open_tracepoint(tracefs.event_id(_GROUP, "all"))
                perf.enable(fd, program)
            with setting(_EXPEDITED, "1"), _timed(values, "close"):
                fds.close(fd)
        finally:
            with setting(_EXPEDITED, "1"), _timed(values, "delete"):
                _write_commands(tracefs, f"-:{_GROUP}/all\n")
    values["attach"] = values["define"] + values["arm"]
    values["detach"] = values["close"] + values["delete"]
    return values


def _text_address() -> int:
    with Path("/proc/kallsyms").open() as symbols:
        return next(int(line.split()[0], 16) for line in symbols if line.endswith(" _text\n"))


def _write_commands(tracefs: Tracefs, text: str) -> None:
    fd = os.open(f"{tracefs.root}/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        while text:
            # The kernel parses each write on its own, so no line may be split.
            end = len(text) if len(text) <= _WRITE_SIZE else text.rfind("\n", 0, _WRITE_SIZE) + 1
            if os.write(fd, text[:end].encode()) != end:
                raise RuntimeError("short write to kprobe_events")
            text = text[end:]
    finally:
        os.close(fd)


@contextlib.contextmanager
def setting(file: Path, value: str) -> Iterator[None]:
    """Set a kernel setting within the block."""
    before = file.read_text()
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(before)
