"""`perf`: one perf kprobe per probe (Linux 4.17), the kernel object that bcc's attach_kprobe makes.

It is opened by address through perf_event_open(2) itself: bcc drops errno, cannot reach namesakes,
and falls back to a trace event of its own when the kernel refuses.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections import deque
from collections.abc import Iterable, Sequence

from batchprobe.attach.base import Attached, Carrier, Context, Refusal
from batchprobe.attach.trace_event import NO_PLACE, load, places, register_ips
from batchprobe.commit.queue import Reclaimed
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.probe import Probe
from batchprobe.sys import bpf, fds
from batchprobe.sys.files import read_text

__all__ = ["NAME", "attach"]

NAME = "perf"
_PMU = "/sys/bus/event_source/devices/kprobe/type"
# The kernel serialises most of a close: more threads than this gained nothing.
_CLOSERS = 32


def attach(probes: Sequence[Probe], context: Context, attached: Attached) -> None:
    """Open one perf event a probe; entry and return probes differ in their program."""
    try:
        pmu = int(read_text(_PMU))
    except OSError as error:
        raise UnsupportedError(f"no perf kprobes: {error}", remedy="Linux 4.17 has them") from None
    _raise_file_limit(len(probes))
    attached.carry(
        probes,
        context,
        lambda wanted, is_return: PerfCarrier(wanted, context, pmu, is_return=is_return),
    )


def _raise_file_limit(more: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) + more + 64
    if soft < wanted:
        # What the hard limit does not allow is refused probe by probe, with EMFILE.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


class PerfCarrier(Carrier):
    """A bundle of perf kprobes: each has its own kernel object, so all that leave are dirty."""

    def __init__(
        self, probes: Sequence[Probe], context: Context, pmu: int, *, is_return: bool
    ) -> None:
        super().__init__(probes, ips=context.arch.most_ips)
        self._pmu = pmu
        self._is_return = is_return
        self._fds: dict[Probe, int] = {}

    def attach(self, context: Context) -> None:
        # Here, for it takes long to import; not in the reclaim, which may have no descriptor left.
        import concurrent.futures.thread  # noqa: PLC0415

        self._pool = concurrent.futures.ThreadPoolExecutor
        program = load(self.bank, context, is_return=self._is_return)
        for probe in list(self.live):
            self._attach(probe, context, program)
            context.progress(1)

    def _attach(self, probe: Probe, context: Context, program: int) -> None:
        waits = probe.target.function is None
        why = "a perf kprobe cannot wait for a module" if waits else NO_PLACE
        refusal = Refusal(probe, 0, why)
        for place in () if waits else places(probe, context):
            probe.offset, probe.placement = place.offset, place.placement
            try:
                self._fds[probe] = fd = bpf.perf_kprobe_open(
                    self._pmu, probe.address or 0, is_return=probe.target.is_return
                )
                register_ips(self.bank, [probe], context)
                bpf.perf_run_bpf(fd, program)
            except KernelError as error:
                if not refusal.errno:
                    refusal = Refusal(probe, error.errno, str(error))
                if probe in self._fds:
                    self._close([probe])
            else:
                probe.abi = NAME
                return
        self.live.pop(probe)
        self.refused.append(refusal)

    def _close(self, probes: Iterable[Probe]) -> None:
        left = deque(self._fds.pop(probe) for probe in probes if probe in self._fds)

        def close_next(_: int) -> None:
            # close(2) releases the descriptor whatever it says.
            fds.close(left.popleft())

        # At the interpreter's exit no thread can be started any more.
        workers = min(_CLOSERS, len(left) or 1)
        with contextlib.suppress(RuntimeError), self._pool(workers) as closers:
            list(closers.map(close_next, range(len(left))))
        while left:
            close_next(0)

    @property
    def is_empty(self) -> bool:
        return not self._fds

    def reclaim(self, gone: Sequence[Probe]) -> Reclaimed:
        self._bury(gone)
        self._close(gone)
        if not self.live:
            self.bank.close()
        return Reclaimed(dirty=len(gone))

    def missed(self) -> int | None:
        # kprobe_profile does not list perf kprobes.
        return None
