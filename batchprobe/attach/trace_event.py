# SPDX-License-Identifier: Apache-2.0
"""`event`: one trace event fed by many kprobes, with one perf fd and one program.

Writing `p:GROUP/EVENT FUNC` again under the same name appends a probe (Linux 5.4). Closing the fd
disarms all of them with one wait of each kind. Deleting the event then frees them, with a grace
period per probe, which expedited RCU makes short (kernel/trace/trace_kprobe.c).
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from batchprobe.attach.base import AttachContext, Attachment, Placement
from batchprobe.attach.kprobe import NO_SITE, Site, load, map_ips, sites
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.commit.queue import Reclaimed, Remains, RemovalFailure
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.functions.table import FunctionTable
from batchprobe.kernel.host import threads
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.probe import Probe
from batchprobe.sys import fds, perf

__all__ = ["NAME", "TraceEventAttachment", "attach", "event_name"]

NAME = "event"
_event_numbers = itertools.count()
# The first symbol of the kernel's text, which even a linear search finds at once. Where it is in a
# section of its own (arm64), only a kernel with CONFIG_KALLSYMS_ALL has it in kallsyms.
_ANCHORS = ("_text", "_stext")
_QUIET_TRIES = 3
# A second function of the same name: since Linux 6.6, and before.
_NAMESAKES = frozenset({errno.EADDRNOTAVAIL, errno.EEXIST})
# Threads that may start; KRETPROBE_MAXACTIVE_MAX (kernel/trace/trace_kprobe.c); about 64 MB of
# instances; and what the kernel would take on a machine with few CPUs.
_SPARE = 64
_MAX_ACTIVE = 4096
_MAX_INSTANCES = 1 << 20
_MIN_ACTIVE = 16
_RAW_MARK = "slot=\\"
# Up to this many probes, move those that cannot be jump-optimized (13 %) to the entry, which halves
# their cost per hit. Beyond that, the walks over all ftrace records cost more than they save.
_FEW = 64


def attach(probes: Sequence[Probe], context: AttachContext, attached: AttachOutcome) -> None:
    """Attach entry probes to one event and return probes to another: an event has one kind."""
    attached.add(
        probes,
        context,
        lambda wanted, is_return, beside: TraceEventAttachment(
            wanted, context, is_return=is_return, beside=beside
        ),
    )


def event_name() -> str:
    """The name of another trace event of this process.

    Unique without its group, because kprobe_profile does not print that.
    """
    return f"bp{os.getpid()}_{next(_event_numbers)}"


def _anchor(table: FunctionTable) -> tuple[str, int]:
    for name in _ANCHORS:
        address = table.symbol_address(name)
        if address is not None:
            return name, address
    raise UnsupportedError(f"kallsyms has neither of {', '.join(_ANCHORS)}")


def _definition_order(wanted: tuple[Probe, tuple[Site, ...]]) -> int:
    """Entries first, then sites that may end at the entry, then breakpoints."""
    _, where = wanted
    if not where or where[0].placement == "entry":
        return 0
    return 1 if where[0].is_doubtful else 2


def _max_active(probes: int) -> int:
    """How many calls of one function a return probe can follow at a time: the kernel allocates that
    many instances for each function, and misses the returns of more.
    """
    return max(min(threads() + _SPARE, _MAX_ACTIVE, _MAX_INSTANCES // probes), _MIN_ACTIVE)


class TraceEventAttachment(Attachment):
    """A trace event of this process, and the perf fd that arms its probes."""

    def __init__(
        self,
        probes: Sequence[Probe],
        context: AttachContext,
        *,
        is_return: bool,
        beside: Attachment | None = None,
    ) -> None:
        # First, because these may raise.
        self._tracefs = Tracefs.find()
        self._anchor, self._base = _anchor(context.table)
        # A probe that is moved to the entry leaves an instruction pointer behind.
        moved = len(probes) <= _FEW and context.arch.jump_optimizes
        super().__init__(probes, context, ips=context.arch.max_ips + moved, beside=beside)
        self._is_return = is_return
        self._kind = "r" if is_return else "p"
        if beside is not None:
            self._kind += str(_max_active(len(probes)))
        self._group = context.group
        self._event = event_name()
        self._fd = -1
        self._defined: dict[Probe, str] = {}
        self._reclaimed = context.reclaimed
        self._shrunk = False
        self._unaccounted_before: int | None = None
        self._missed: int | None = None
        # As last read: the kernel's count of hits and misses, in the order of `_defined`.
        self._profile: list[int] = []
        self._profile_before: dict[Probe, int] = {}
        self._missed_in: list[Probe] = []

    # -- attach ------------------------------------------------------------------------------

    def attach(self, context: AttachContext) -> None:
        program = load(self.maps, context, is_return=self._is_return)
        if not self._fill(context):
            return
        context.guard()
        with self._tracefs.commands() as command:
            self._define_all(context, command)
            if not self.live:
                return
            self._arm(program)
            if slow := self._not_optimized(context):
                self._move_to_entry(slow, context, command)
                if self.live:
                    map_ips(self.maps, self.live.keys() & slow, context.arch)
                    self._arm(program)

    @property
    def _name(self) -> str:
        return f"{self._group}/{self._event}"

    def _define_all(self, context: AttachContext, command: Callable[[str], None]) -> None:
        """Define the probes, entries first and breakpoints last: they are disarmed in that order.

        Some jiffies after the first breakpoint is disarmed, the kernel begins to take jumps out,
        and each time holds kprobe_mutex for 50 ms in synchronize_rcu_tasks() (kprobe_optimizer(),
        kernel/kprobes.c). Disarming ftrace sites takes longer than those jiffies; disarming the
        breakpoints last is over before it begins.
        """
        wanted = [(probe, sites(probe, context)) for probe in self.live]
        wanted.sort(key=_definition_order)
        for probe, where in wanted:
            error = self._define(probe, where, command)
            if error is not None:
                self._refuse(probe, error)
            context.progress(1)
        map_ips(self.maps, self.live, context.arch)

    def _not_optimized(self, context: AttachContext) -> list[Probe]:
        """Probes after the patch site that trap on every hit, if there are few probes."""
        if (
            not context.arch.jump_optimizes
            or context.placement is not Placement.AUTO
            or len(self.live) > _FEW
        ):
            return []
        behind = [
            probe
            for probe, definition in self._defined.items()
            if probe.placement == "after" and _RAW_MARK not in definition
        ]
        if not behind:
            return []
        from batchprobe.kernel.kprobes_list import breakpoints  # noqa: PLC0415 (probes are armed)

        traps = breakpoints()
        return [probe for probe in behind if probe.address in traps]

    def _move_to_entry(
        self, probes: Iterable[Probe], context: AttachContext, command: Callable[[str], None]
    ) -> None:
        """Disarm all, and define these at the entry where the kernel takes them there."""
        with context.expedited_grace_periods():
            self._disarm()
            for probe in probes:
                if self._undefine(probe) is None:
                    error = self._define(probe, reversed(sites(probe, context)), command)
                    if error is not None:
                        self._refuse(probe, error)

    def _define(
        self, probe: Probe, where: Iterable[Site], command: Callable[[str], None]
    ) -> KernelError | None:
        """Define the probe at the first site that the kernel takes; returns its first error if it
        takes none.
        """
        first: KernelError | None = None
        for site in where:
            probe.offset, probe.placement = site.offset, site.placement
            for definition in self._definitions(probe):
                try:
                    # Noted before: a write that is interrupted may have defined it.
                    self._defined[probe] = definition
                    command(f"{self._kind}:{self._name} {definition}")
                except KernelError as error:
                    first = first or error
                    del self._defined[probe]
                    if error.errno not in _NAMESAKES:
                        break
                else:
                    probe.abi = NAME
                    return None
        return first or KernelError(NO_SITE, errno.EOPNOTSUPP)

    def _definitions(self, probe: Probe) -> Iterator[str]:
        """The probe's address in the forms that kprobe_events takes, best first.

        `_text+N` reaches namesakes, costs the kernel no search, and can be deleted singly. A raw
        address cannot: the kernel compares it as printed by %p, which is hashed since 4.15.
        """
        target = probe.target
        function = target.function
        if function is not None and not function.module:
            yield f"{self._anchor}+{function.address - self._base + probe.offset}"
            return
        # By name, so that the kernel arms it again whenever the module is loaded.
        name = f"{target.module}:{target.name}"
        yield f"{name}+{probe.offset}" if probe.offset else name
        if function is not None:
            # One of several namesakes in a module. Hashed addresses look alike to the kernel; an
            # argument that nobody reads makes the definitions differ.
            yield f"{function.address + probe.offset:#x} {_RAW_MARK}{probe.slot}:u32"

    def _arm(self, program: int) -> None:
        """Open the perf fd, which arms all probes, and run the program."""
        self._fd = perf.open_tracepoint(self._tracefs.event_id(self._group, self._event))
        perf.enable(self._fd, program)
        # Hits between these two calls ran no program.
        self._unaccounted_before = self._unaccounted()
        self._profile_before = dict(zip(self._defined, self._profile, strict=False))

    def _disarm(self) -> None:
        fd, self._fd = self._fd, -1
        fds.close(fd)

    # -- reclaim -----------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return self._fd < 0 and not self._defined

    def reclaim(self, gone: Sequence[Probe], remains: Remains | None = None) -> Reclaimed:
        self._forget(gone)
        if not self.live:
            failure = self._remove(remains)
            return Reclaimed(dirty=len(gone), failed=(failure,) if failure else ())
        # Deleted probes leave kprobe_profile, and their misses with them.
        self._shrunk = True
        dead = [probe for probe in self._defined if probe not in self.live]
        if remains is not None:
            self._leave(dead, remains)
            return Reclaimed(clean=len(gone))
        return Reclaimed(clean=len(gone), failed=tuple(self._delete(dead)))

    def _delete(self, probes: Sequence[Probe]) -> list[RemovalFailure]:
        """Delete single probes of the event; the next commit tries again what could not go."""
        failures = []
        for done, probe in enumerate(probes, 1):
            if _RAW_MARK in self._defined[probe]:
                # It can only go with the whole event; its gate is closed.
                continue
            error = self._undefine(probe)
            if error is not None:
                failures.append(RemovalFailure(str(error), error.errno))
            self._reclaimed(done, len(probes))
        return failures

    def _leave(self, probes: Sequence[Probe], remains: Remains) -> None:
        for probe in probes:
            if _RAW_MARK not in self._defined[probe]:
                remains.commands.append(self._deletion(probe))
                del self._defined[probe]

    def _deletion(self, probe: Probe) -> str:
        return f"-:{self._name} {self._defined[probe]}"

    def _undefine(self, probe: Probe) -> KernelError | None:
        try:
            self._tracefs.delete(self._deletion(probe))
        except KernelError as error:
            return error
        del self._defined[probe]
        return None

    def _remove(self, remains: Remains | None) -> RemovalFailure | None:
        """Disarm all probes and delete the event; returns what stayed, and why."""
        if self._fd >= 0:
            # From the close on, hits run no program, but the kernel still counts them.
            self._missed = self._missed_till_now()
            if remains is None:
                self._disarm()
            else:
                remains.fds.append(self._fd)
                self._fd = -1
        self._close_maps()
        if not self._defined:
            return None
        if remains is not None:
            if not self._expedites():
                # As below.
                self._leave(list(self._defined)[:-1], remains)
            remains.commands.append(f"-:{self._name}")
            self._defined.clear()
            return None
        if not self._expedites():
            # A single write would block for a grace period per probe, without any progress.
            self._delete(list(self._defined)[:-1])
        try:
            self._tracefs.delete(f"-:{self._name}")
        except KernelError as error:
            return RemovalFailure(str(error), error.errno)
        self._defined.clear()
        return None

    # -- missed hits ---------------------------------------------------------------------------

    def _missed_till_now(self) -> int | None:
        before, now = self._unaccounted_before, self._unaccounted()
        if self._shrunk or before is None or now is None:
            return None
        if self._beside is not None:
            return max(0, now - before)
        # Unclaimed: hits of modules that were unloaded before their functions could be looked up.
        missed = max(0, now - before) + sum(self.maps.unclaimed_hits().values())
        if missed:
            self._missed_in = self._in_excess()
        return missed

    def _in_excess(self) -> list[Probe]:
        """Probes that the kernel saw hit more often than the program counted, most of all first.

        Hits since the gates were closed are among the excess, so it is no exact number of misses.
        """
        counted = self.maps.hits()
        excess = {
            probe: seen - self._profile_before.get(probe, 0) - counted[probe.slot]
            for probe, seen in zip(self._defined, self._profile, strict=False)
        }
        probes = [probe for probe, more in excess.items() if more > 0]
        return sorted(probes, key=excess.__getitem__, reverse=True)

    def _unaccounted(self) -> int | None:
        """Hits by kprobe_profile minus runs of the program; None if they cannot be read.

        Exact if no probe was hit while it was read. Otherwise, after a few tries, it is too small
        by the hits in between.
        """
        if self._beside is not None:
            # Its program counts no runs, but the kernel counts the returns that it misses.
            try:
                return sum(self._tracefs.misses(self._event))
            except KernelError:
                return None
        for _ in range(_QUIET_TRIES):
            try:
                before = self.maps.runs()
                self._profile = self._tracefs.hits(self._event)
                after = self.maps.runs()
            except KernelError:
                # The process may have dropped privileges: no reason to refuse or keep probes.
                return None
            if before == after:
                break
        return sum(self._profile) - after

    def missed(self) -> int | None:
        return self._missed

    def missed_in(self) -> Sequence[Probe]:
        return self._missed_in
