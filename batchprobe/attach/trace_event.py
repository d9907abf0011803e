"""`event`: one trace event that many kprobes feed, one perf fd and one program on it (Linux 5.4).

Writing `p:GROUP/EVENT FUNC` again under the same name appends a probe. Closing the one fd disarms
them all with one barrier of each kind; deleting the event then frees them, one grace period each,
made short by expedited RCU (kernel/trace/trace_kprobe.c).
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from batchprobe.attach.base import Attached, Carrier, Context, Placement, hit_ips
from batchprobe.commit.queue import Left, Reclaimed
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.sys import bpf, fds

if TYPE_CHECKING:
    from batchprobe.functions.table import FunctionTable
    from batchprobe.kernel.tracefs import Tracefs
    from batchprobe.probe import Probe
    from batchprobe.programs.probe_maps import Bank

__all__ = ["NAME", "Place", "attach", "load", "places", "register_ips"]

NAME = "event"
_event_numbers = itertools.count()
# The first symbol of the kernel's text: found at once by a linear search too. Where it is in a
# section of its own (arm64), only a kernel with CONFIG_KALLSYMS_ALL tells it.
_ANCHORS = ("_text", "_stext")
_QUIET_TRIES = 3
_BUSY_SECONDS = 1.0
_BUSY_STEP = 0.005
# What the kernel says to a second function of a name, since 6.6 and before.
_NAMESAKES = frozenset({errno.EADDRNOTAVAIL, errno.EEXIST})
_RAW_MARK = "slot=\\"
# Of so many a breakpoint that stays one is moved to the entry, where a hit costs half as much. Of
# more, some 13 in 100 are such, and each would cost a walk of all ftrace sites to attach and again
# to detach: as much as all the others.
_FEW = 64
NO_PLACE = "no place in it is one whose probes can be trusted"


class Place(NamedTuple):
    """Where a probe may stand."""

    # Behind the function's symbol.
    offset: int
    placement: str
    # The kernel may have reasons to refuse it.
    is_doubtful: bool = False


def places(probe: Probe, context: Context) -> tuple[Place, ...]:
    """Where the probe may stand, best first."""
    target = probe.target
    arch, placement = context.arch, context.placement
    if target.offset:
        return (Place(target.offset, "offset"),)
    if target.function is None:
        # By name: the kernel looks for the place when the module comes, and tells nobody if it
        # finds it bad. A return probe's is the entry.
        if arch.unseen_entry:
            return () if target.is_return else (Place(arch.unseen_entry, "after"),)
        return (Place(0, "entry"),)
    inside = not target.is_return and (
        placement is Placement.AFTER or (placement is Placement.AUTO and arch.prefers_after)
    )
    code = context.code(probe) if inside or arch.entry_varies else None
    found = [Place(arch.entry(code), "entry")]
    if target.is_return:
        return tuple(found)
    after = arch.after_patch_site(code) if inside and code else None
    if code and after is not None and target.function.address + after not in context.taken:
        found.insert(0, Place(after, "after", arch.may_patch(code, after)))
    return tuple(place for place in found if place.placement not in context.distrusted)


def register_ips(bank: Bank, probes: Iterable[Probe], context: Context) -> None:
    """Tell the bank of these probes what the handler's instruction pointer will read."""
    bank.address(
        *(
            (ip, probe.slot)
            for probe in probes
            if (function := probe.target.function) is not None
            for ip in hit_ips(probe, function, context.arch)
        )
    )


def load(bank: Bank, context: Context, *, is_return: bool) -> int:
    """The program that finds a kprobe's slot, as this kernel lets it."""
    if not is_return:
        return bank.load(context.programs["by_ip"])
    try:
        return bank.load(context.programs["by_func_ip"])
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
    # Before 5.15 there is no bpf_get_func_ip.
    wanted = ("__per_cpu_offset", "current_kprobe")
    symbols = bank.array("symbols", len(wanted))
    for at, name in enumerate(wanted):
        address = context.table.symbol_address(name)
        if address is None:
            raise KernelError(f"{name} is not in kallsyms", errno.ENOENT)
        symbols.cells[at] = address
    return bank.load(context.programs["by_running_kprobe"])


def _anchor(table: FunctionTable) -> tuple[str, int]:
    for name in _ANCHORS:
        address = table.symbol_address(name)
        if address is not None:
            return name, address
    raise UnsupportedError(f"kallsyms has none of {', '.join(_ANCHORS)}")


def attach(probes: Sequence[Probe], context: Context, attached: Attached) -> None:
    """Attach entry probes to one event, return probes to another (a kind may not mix)."""
    attached.carry(
        probes,
        context,
        lambda wanted, is_return: EventCarrier(wanted, context, is_return=is_return),
    )


def _late(wanted: tuple[Probe, tuple[Place, ...]]) -> int:
    """How late an event should have a probe: the last are surely breakpoints."""
    _, where = wanted
    if not where or where[0].placement == "entry":
        return 0
    return 1 if where[0].is_doubtful else 2


class EventCarrier(Carrier):
    """A trace event of ours and the perf fd that arms its probes."""

    def __init__(self, probes: Sequence[Probe], context: Context, *, is_return: bool) -> None:
        # First: it may raise.
        self._anchor, self._base = _anchor(context.table)
        # What is moved has had a place before.
        moved = len(probes) <= _FEW and context.arch.optimizes
        super().__init__(probes, ips=context.arch.most_ips + moved)
        self._tracefs: Tracefs = context.tracefs
        self._kind = "r" if is_return else "p"
        self._group = context.group
        # kprobe_profile names events without their group.
        self._event = f"bp{os.getpid()}_{next(_event_numbers)}"
        self._fd = -1
        self._defined: dict[Probe, str] = {}
        self._expedites = context.expedites
        self._reclaimed = context.reclaimed
        self._shrunk = False
        self._unaccounted_before: int | None = None
        self._missed: int | None = None

    def attach(self, context: Context) -> None:
        program = load(self.bank, context, is_return=self._kind == "r")
        context.guard()
        with self._tracefs.commands() as command:
            self._define_all(context, command)
            if not self.live:
                return
            self._arm(program)
            if slow := self._breakpoints(context):
                with context.short_waits():
                    self._disarm()
                    for probe in slow:
                        # From behind the patch site to the entry, if the kernel takes it there.
                        if self._undefine(probe) is None:
                            error = self._define(probe, reversed(places(probe, context)), command)
                            if error is not None:
                                self._refuse(probe, error)
                if self.live:
                    register_ips(self.bank, self.live.keys() & slow, context)
                    self._arm(program)

    @property
    def _name(self) -> str:
        return f"{self._group}/{self._event}"

    def _define_all(self, context: Context, command: Callable[[str], None]) -> None:
        """Those at entries first, breakpoints last: so they are disarmed, too.

        Some jiffies after the first breakpoint's disarming the kernel begins to take jumps out, and
        holds all else back meanwhile: 50 ms each time, in synchronize_rcu_tasks()
        (kprobe_optimizer(), kernel/kprobes.c). An ftrace site takes longer than that. In this order
        all is over before it begins.
        """
        wanted = [(probe, places(probe, context)) for probe in self.live]
        wanted.sort(key=_late)
        for probe, where in wanted:
            error = self._define(probe, where, command)
            if error is not None:
                self._refuse(probe, error)
            context.progress(1)
        register_ips(self.bank, self.live, context)

    def _breakpoints(self, context: Context) -> list[Probe]:
        """Those behind the patch site that the kernel could not make jumps, if they are few."""
        if (
            not context.arch.optimizes
            or context.placement is not Placement.AUTO
            or len(self.live) > _FEW
        ):
            return []
        behind = [
            probe
            for probe, place in self._defined.items()
            if probe.placement == "after" and _RAW_MARK not in place
        ]
        if not behind:
            return []
        from batchprobe.kernel import kprobes_list  # noqa: PLC0415  (armed they are by now)

        traps = kprobes_list.breakpoints()
        return [probe for probe in behind if probe.address in traps]

    def _define(
        self,
        probe: Probe,
        where: Iterable[Place],
        command: Callable[[str], None],
    ) -> KernelError | None:
        """At the first of these places that the kernel takes; what it said first, if none."""
        first: KernelError | None = None
        for place in where:
            probe.offset, probe.placement = place.offset, place.placement
            for written in self._written(probe):
                try:
                    # Set before: a write interrupted half-way may have defined it.
                    self._defined[probe] = written
                    command(f"{self._kind}:{self._name} {written}")
                except KernelError as error:
                    first = first or error
                    del self._defined[probe]
                    if error.errno not in _NAMESAKES:
                        break
                else:
                    probe.abi = NAME
                    return None
        return first or KernelError(NO_PLACE, errno.EOPNOTSUPP)

    def _written(self, probe: Probe) -> Iterator[str]:
        """The probe's place as kprobe_events takes it, best first.

        `_text+N` reaches namesakes, costs the kernel no search, and unlike a raw address can be
        deleted alone: the kernel compares raw addresses as %p, which hides them (since 4.15).
        """
        target = probe.target
        function = target.function
        if function is not None and not function.module:
            yield f"{self._anchor}+{function.address - self._base + probe.offset}"
            return
        # By name, so that the kernel arms it again whenever the module comes.
        name = f"{target.module}:{target.name}"
        yield f"{name}+{probe.offset}" if probe.offset else name
        if function is not None:
            # One of several of that name. Raw addresses look alike to the kernel: the argument,
            # which nobody reads, tells them apart.
            yield f"{function.address + probe.offset:#x} {_RAW_MARK}{probe.slot}:u32"

    def _arm(self, program: int) -> None:
        """Open the one fd: all probes are armed, and run the program."""
        self._fd = bpf.perf_tracepoint_open(self._tracefs.event_id(self._group, self._event))
        bpf.perf_run_bpf(self._fd, program)
        # Hits between these two were counted by the kernel alone.
        self._unaccounted_before = self._unaccounted()

    def _disarm(self) -> None:
        fd, self._fd = self._fd, -1
        fds.close(fd)

    @property
    def is_empty(self) -> bool:
        return self._fd < 0 and not self._defined

    def reclaim(self, gone: Sequence[Probe]) -> Reclaimed:
        self._bury(gone)
        if not self.live:
            left = self._remove()
            return Reclaimed(dirty=len(gone), left=(left,) if left else ())
        # What is deleted leaves kprobe_profile, so its misses can't be told any more.
        self._shrunk = True
        dead = [probe for probe in self._defined if probe not in self.live]
        return Reclaimed(clean=len(gone), left=tuple(self._delete(dead)))

    def _delete(self, probes: Sequence[Probe]) -> list[Left]:
        """Delete single probes of the event; those that stay are tried again next time."""
        left = []
        for done, probe in enumerate(probes, 1):
            if _RAW_MARK in self._defined[probe]:
                # It can only go with the whole event; its gate is closed.
                continue
            error = self._undefine(probe)
            if error is not None:
                left.append(Left(str(error), error.errno))
            self._reclaimed(done, len(probes))
        return left

    def _undefine(self, probe: Probe) -> KernelError | None:
        try:
            self._tracefs.command(f"-:{self._name} {self._defined[probe]}")
        except KernelError as error:
            return error
        del self._defined[probe]
        return None

    def _remove(self) -> Left | None:
        """Disarm all probes, then delete the event; what stays and why, or None."""
        if self._fd >= 0:
            # What is hit from the close on runs no program, yet the kernel counts it.
            self._missed = self._missed_till_now()
            self._disarm()
        self.bank.close()
        if not self._defined:
            return None
        if not self._expedites():
            # One write would hold the kernel for a grace period a probe, and show no progress.
            self._delete(list(self._defined)[:-1])
        error = self._delete_event()
        if error is not None:
            return Left(str(error), error.errno)
        self._defined.clear()
        return None

    def _delete_event(self) -> KernelError | None:
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._tracefs.command(f"-:{self._name}")
            except KernelError as error:
                if error.errno == errno.ENOENT:
                    # Nothing was defined after all, or somebody else removed it.
                    return None
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return error
                # A process that another thread is starting has our perf fd until its exec.
                time.sleep(_BUSY_STEP)
            else:
                return None

    def _missed_till_now(self) -> int | None:
        before, now = self._unaccounted_before, self._unaccounted()
        if self._shrunk or before is None or now is None:
            return None
        # Of modules that went before anybody looked whose functions these were.
        return max(0, now - before) + sum(self.bank.unknown_strays().values())

    def _unaccounted(self) -> int | None:
        """Hits by the kernel's count less runs of the program, None if they cannot be read.

        Exact if no probe was hit while it was read; else, after a few tries, too small by as many
        hits as there were meanwhile.
        """
        for _ in range(_QUIET_TRIES):
            try:
                before = self.bank.runs()
                hits = self._tracefs.hits(self._event)
                after = self.bank.runs()
            except KernelError:
                # Say, rights were given up since: no reason to refuse probes, or to keep them.
                return None
            if before == after:
                break
        return hits - after

    def missed(self) -> int | None:
        return self._missed
