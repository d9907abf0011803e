"""Session: attach, read, detach, commit, close."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Self

from batchprobe import arch
from batchprobe._util import gc_pause
from batchprobe._util.interrupts import deferred_interrupt
from batchprobe.attach import abis
from batchprobe.attach.abis import Attached, Context, Placement, hit_ips, sum_of_known
from batchprobe.attach.select import carry
from batchprobe.commit.barrier import Barrier, BarrierMode
from batchprobe.commit.queue import CommitQueue, CommitReport
from batchprobe.errors import (
    AttachCancelledError,
    NotAttachedError,
    NothingAttachedError,
    SessionError,
    UnsupportedError,
)
from batchprobe.funclist.spec import Source, parse_entry
from batchprobe.functions.cache import BootMemory
from batchprobe.functions.resolve import resolve
from batchprobe.functions.table import FunctionTable
from batchprobe.kernel.host import require_tracing
from batchprobe.kernel.kcore import KernelText
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.probe import Departure, Probe, ProbeState
from batchprobe.programs.program import shipped
from batchprobe.sys.process import Owner

if TYPE_CHECKING:
    from batchprobe.attach.abis import Carrier
    from batchprobe.cleanup.guardian import Guardian
    from batchprobe.commit.queue import Left
    from batchprobe.funclist.spec import ProbeSpec
    from batchprobe.functions.targets import Reason, Resolution, Skipped
    from batchprobe.programs.compiler import Compiler
    from batchprobe.programs.probe_maps import Bank, Counts
    from batchprobe.programs.program import Program

    Progress = Callable[[str, int, int], None]
    """Called with a stage ("resolve", "compile", "attach", and, where it takes long, "reclaim"),
    how much of it is done, and of how much."""

__all__ = ["Session"]

_POLL_SECONDS = 0.1


class Session:
    """Probes on kernel functions, and one commit that takes them off.

        with Session() as session:
            probes = session.attach(["vfs_*", "tcp_sendmsg%return"])
            time.sleep(5)
            for probe in probes:
                print(probe.label, probe.count)

    Leaving the block detaches all in one commit; so do `close` and the interpreter's exit. Any
    thread may attach, detach and commit; a signal handler may only detach, for the others wait for
    what the interrupted thread may hold. A forked child may do nothing with it, and disturbs
    nothing by its exit: the probes are its parent's.

    `abi` is "auto", "multi", "event" or "perf"; `placement` "auto", "entry" or "after" (behind the
    entry patch site); `barrier` "auto", "expedited" or "normal". `progress` hears of what takes
    long. Making a session touches nothing.
    """

    def __init__(
        self,
        *,
        abi: str = "auto",
        placement: str = "auto",
        barrier: str = "auto",
        progress: Progress = lambda _stage, _done, _total: None,
    ) -> None:
        if abi != "auto" and abi not in abis.ABIS:
            raise ValueError(f"no probe ABI {abi!r}: auto, {', '.join(abis.ABIS)}")
        self._abi = abi
        self._placement = Placement(placement)
        self._progress = progress
        self._owner = Owner.this_process()
        self._mode = BarrierMode(barrier)
        self._barrier = Barrier(self._mode, self._owner, guard=self._begin_watch)
        self._queue: CommitQueue = CommitQueue(
            barrier=self._barrier.wait,
            short_waits=self._barrier.short_waits,
            settle=self._settle,
            restore=self._barrier.restore,
        )
        # One attach at a time; and, held for moments only, what the lists and states say.
        self._attaching = RLock()
        self._attach_depth = 0
        self._lock = RLock()
        self._closed = False
        # In order of attach; those that are gone are forgotten.
        self._probes: dict[Probe, None] = {}
        self._carriers: dict[Carrier, None] = {}
        self._departing: set[Departure] = set()
        self._missed: int | None = 0
        # Raised by `progress` during a reclaim, which goes on.
        self._progress_error: BaseException | None = None
        self._skipped: list[Skipped] = []
        self._left_out: dict[Reason, int] = {}
        self._symbols = _Symbols()
        # By ABI: see `distrusted`.
        self._distrusted: dict[str, Mapping[str, str]] = {}
        self._guardian: Guardian | None = None
        self._swept = False
        # Those that are shipped: read once.
        self._programs: dict[str, Program] | None = None

    # -- what there is -----------------------------------------------------------------------

    @property
    def probes(self) -> list[Probe]:
        """The probes that are attached or queued, in order of attach.

        A committed one is forgotten here; the object that `attach` gave keeps its final count.
        """
        # One step, without a lock: `detach_all` asks while it holds the queue's.
        return list(self._probes)

    @property
    def attached(self) -> list[Probe]:
        """The probes that count now."""
        return [probe for probe in self.probes if probe.state is ProbeState.ATTACHED]

    @property
    def skipped(self) -> list[Skipped]:
        """Entries that ended as no probe, each with its reason."""
        return list(self._skipped)

    @property
    def left_out(self) -> dict[Reason, int]:
        """How many functions patterns matched and left out since no probe may stand there."""
        return dict(self._left_out)

    @property
    def barrier_note(self) -> str:
        """Why grace periods are not expedited; empty if they are."""
        return self._barrier.note

    @property
    def distrusted(self) -> dict[tuple[str, str], str]:
        """Which probes (by ABI, and "entry", "after" or "return") do not tell here what they
        should, and what is wrong: these are not used. See `batchprobe.calibration`.
        """
        return {
            (abi, place): wrong
            for abi, places in self._distrusted.items()
            for place, wrong in places.items()
        }

    def counts(self) -> dict[Probe, int]:
        """Hits so far of every probe in `probes`, each bank read once.

        Counters only grow: print differences, never reset them.
        """
        self._require_ours()
        self._adopt_strays()
        with self._lock:
            # No probe settles, and so no bank is closed, while the lock is held.
            return _read_counts(self._probes)

    def missed(self) -> int | None:
        """Hits that found a probe but were not counted, None where the kernel cannot tell.

        The event ABI's are known after its last probe's commit.
        """
        with self._lock:
            return sum_of_known(self._missed, *(carrier.missed() for carrier in self._carriers))

    # -- attach ------------------------------------------------------------------------------

    def attach(
        self,
        entries: Iterable[str | ProbeSpec],
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Probe]:
        """Attach a probe to every function the entries name; all begin to count together.

        Entries are written as in a function list (see `batchprobe.spec`). What cannot be probed is
        added to `skipped`, with the reason; the rest is attached.

        Raises SpecError for a malformed entry, NothingAttachedError if no probe came of it,
        UnsupportedError where this machine or user cannot trace, AttachCancelledError after
        `cancelled()` said so (nothing stays attached then), SessionError if the session is closed,
        another process's, or in a commit of this thread.
        """
        self._require_usable()
        self._require_open()
        specs = _specs(entries)
        with deferred_interrupt() as interrupt, self._one_attach(), gc_pause.held():

            def check() -> None:
                if interrupt.pressed or cancelled():
                    raise AttachCancelledError("interrupted while attaching: nothing is attached")
                self._require_open()

            try:
                return self._attach(specs, check)
            except AttachCancelledError:
                if not interrupt.pressed:
                    raise
        raise AssertionError("unreachable: the interrupt was raised")

    @contextmanager
    def _one_attach(self) -> Iterator[None]:
        with self._attaching:
            self._attach_depth += 1
            try:
                yield
            finally:
                self._attach_depth -= 1
                self._end_watch()
            if self._guardian is not None:
                self._guardian.prepare()

    def _attach(self, specs: Sequence[ProbeSpec], check: Callable[[], None]) -> list[Probe]:
        report = self._progress
        require_tracing()
        tracefs = Tracefs.find()
        adapter = arch.current()
        programs = self._programs = self._programs or shipped()
        compiler = None if programs else _compiler()
        try:
            report("resolve", 0, 1)
            table = self._symbols.table(tracefs)
            found = resolve(specs, table, syscall_prefixes=adapter.syscall_prefixes)
            report("resolve", 1, 1)
            check()
            if not found.targets:
                self._note_skipped(found, ())
                raise NothingAttachedError("no entry of the list names a function to probe")
            if compiler is not None:
                report("compile", 0, 1)
                while (programs := compiler.wait(_POLL_SECONDS)) is None:
                    check()
                report("compile", 1, 1)
        finally:
            if compiler is not None:
                compiler.close()
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            # What one ABI refuses another one tries.
            done = min(done + count, len(found.targets))
            report("attach", done, len(found.targets))
            check()

        context = Context(
            arch=adapter,
            tracefs=tracefs,
            text=KernelText(),
            table=table,
            programs=programs or {},
            placement=self._placement,
            taken={target.address for target in found.targets if target.address and target.offset},
            group=self._owner.group,
            short_waits=self._barrier.short_waits,
            guard=self._begin_watch,
            expedites=lambda: self._barrier.expedites,
            progress=progress,
            reclaimed=self._reclaimed,
        )
        try:
            return self._carry(found, context)
        finally:
            context.text.close()

    def _carry(self, found: Resolution, context: Context) -> list[Probe]:
        attached = Attached()
        try:
            probes, refused = carry(
                found.targets,
                context,
                attached,
                abi=self._abi,
                distrusted=lambda abi: self._calibrated(abi, context),
            )
            # The commit will need it, which should not wait for it.
            if probes:
                self._begin_watch()
                self._sweep()
        except BaseException:
            self._discard(attached.carriers + attached.failed)
            # One error is enough.
            self._progress_error = None
            raise
        self._discard(attached.failed)
        self._note_skipped(found, refused)
        if not probes:
            raise NothingAttachedError("the kernel took none of the probes")
        # Before anybody knows the probes, and may detach one.
        for carrier in attached.carriers:
            carrier.bank.open_gates(probe.slot for probe in carrier.live)
        with self._lock:
            if not self._closed:
                self._carriers.update(dict.fromkeys(attached.carriers))
                self._probes.update(dict.fromkeys(probes))
                return probes
        self._discard(attached.carriers)
        raise SessionError("the session was closed while it attached: nothing is attached")

    def _calibrated(self, abi: str, context: Context) -> Mapping[str, str]:
        """Where probes of this ABI would count wrongly. That none would is kept for the boot."""
        if abi not in self._distrusted:
            wrong: dict[str, str] = {}

            def look() -> bytes | None:
                wrong.update(self._calibrate(abi, context))
                return None if wrong else b"as described"

            self._symbols.memory.text(f"calibration-{abi}", look)
            self._distrusted[abi] = wrong
        return self._distrusted[abi]

    def _calibrate(self, abi: str, context: Context) -> dict[str, str]:
        from batchprobe.attach import calibration  # noqa: PLC0415  (once a boot)

        try:
            probed = calibration.target(context.table)
        except UnsupportedError:
            # The adapter has to be taken at its word.
            return {}
        kinds = [kind for kind in calibration.KINDS if kind.abi == abi]
        tries = calibration.calibrate(context, probed, kinds, self._discard)
        return {kind.place: finding.wrong for kind, finding, _ in tries if finding.wrong}

    def _discard(self, carriers: Sequence[Carrier]) -> Sequence[Left]:
        """Undo an attach; what cannot be removed is left to the commits, which tell."""
        self._queue.discard((carrier, list(carrier.live)) for carrier in carriers)
        return ()

    def _note_skipped(self, found: Resolution, refused: Sequence[Skipped]) -> None:
        self._skipped += [*found.skipped, *refused]
        for reason, count in found.left_out.items():
            self._left_out[reason] = self._left_out.get(reason, 0) + count

    # -- detach and commit -------------------------------------------------------------------

    def detach(
        self, probes: Probe | Iterable[Probe], *, commit: bool = False
    ) -> CommitReport | None:
        """Take probes out of service: they count no more, and wait for the commit.

        Nothing waits here, unless `commit` asks for it. Raises NotAttachedError, and changes
        nothing, if any of them is not attached by this session.
        """
        if commit:
            self._require_usable()
        self._require_ours()
        gone = [probes] if isinstance(probes, Probe) else list(probes)

        def top() -> None:
            self._require_attached(gone)
            by_bank: dict[Bank, list[int]] = {}
            for probe in gone:
                by_bank.setdefault(probe.bank, []).append(probe.slot)
            for bank, slots in by_bank.items():
                bank.close_gates(slots)
            departure = self._departure(gone)
            for probe in gone:
                probe.depart(departure)

        with deferred_interrupt():
            self._queue.add(gone, top)
        return self.commit() if commit else None

    def commit(self, on_final: Callable[[], None] | None = None) -> CommitReport:
        """Apply all that is queued: one barrier, then reclaim.

        `on_final` is called when the counts are final, before the kernel objects are reclaimed.
        Commits of other threads that were queued before the barrier began are covered by it.
        """
        self._require_usable()
        with deferred_interrupt():
            try:
                self._adopt_strays()
            finally:
                try:
                    report = self._queue.commit(on_final)
                finally:
                    self._forget_gone()
            error, self._progress_error = self._progress_error, None
            if error is not None:
                raise error
        return report

    def detach_all(self, on_final: Callable[[], None] | None = None) -> CommitReport:
        """Detach every probe and commit, in one batch."""
        self._require_usable()
        gone: list[Probe] = []

        def top() -> None:
            # No lock may be taken here, for a signal handler may have interrupted who holds it;
            # so it is looked twice whether an attach or a commit came between.
            carriers, probes = list(self._carriers), list(self._probes)
            whole = not self._departing and carriers == list(self._carriers)
            if whole and sum(len(carrier.live) for carrier in carriers) == len(probes):
                carriers = [carrier for carrier in carriers if carrier.live]
                gone.extend(probes)
                departure = self._departure(gone, [carrier.bank for carrier in carriers])
                for carrier in carriers:
                    carrier.bank.close_all_gates()
                    carrier.departure = departure
                return
            gone.extend(self.attached)
            for bank in {probe.bank for probe in gone}:
                bank.close_all_gates()
            departure = self._departure(gone)
            for probe in gone:
                probe.depart(departure)

        with deferred_interrupt():
            self._queue.add(gone, top)
            return self.commit(on_final)

    @contextmanager
    def batch(self) -> Iterator[Self]:
        """Detaches in this block are committed together at its end, however it is left."""
        try:
            yield self
        finally:
            if self._is_ours:
                self.commit()

    def close(self) -> CommitReport:
        """Detach all, commit, and release everything: no attach any more.

        The second time it only tries again what the first time had to leave. In a forked child it
        does nothing.
        """
        if not self._is_ours:
            return CommitReport()
        self._require_usable()
        with deferred_interrupt():
            with self._lock:
                self._closed = True
            try:
                report = self.detach_all()
            finally:
                # What a callback raised was raised when all was done.
                self._end_watch()
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _departure(self, probes: Sequence[Probe], banks: Sequence[Bank] = ()) -> Departure:
        departure = Departure(probes, banks)
        if probes:
            self._departing.add(departure)
        return departure

    # -- inside ------------------------------------------------------------------------------

    @property
    def _is_ours(self) -> bool:
        return os.getpid() == self._owner.pid

    def _require_ours(self) -> None:
        if not self._is_ours:
            raise SessionError(
                f"the session and its probes are process {self._owner.pid}'s: "
                "a forked child needs a Session of its own"
            )

    def _require_usable(self) -> None:
        self._require_ours()
        if self._queue.commits_here:
            raise SessionError("inside a commit of this thread: wait until it has returned")

    def _require_open(self) -> None:
        if self._closed:
            raise SessionError("the session is closed: nothing is attached")

    def _require_attached(self, probes: Sequence[Probe]) -> None:
        if len(set(probes)) != len(probes):
            raise NotAttachedError("a probe is detached twice in one call")
        for probe in probes:
            if probe.state is not ProbeState.ATTACHED:
                raise NotAttachedError(f"{probe.label} is not attached: it is {probe.state.value}")
            if probe not in self._probes:
                raise NotAttachedError(f"{probe.label} is attached by another session")

    def _settle(self, probes: Sequence[Probe]) -> None:
        """The barrier has passed: keep the final counts."""
        with self._lock:
            for departure in _departures(probes):
                gone = departure.settle()
                self._departing.discard(departure)
                if len(gone) == len(self._probes):
                    self._probes.clear()
                for probe in gone if self._probes else ():
                    self._probes.pop(probe, None)

    def _forget_gone(self) -> None:
        """Let go of carriers that carry nothing any more."""
        with self._lock:
            for carrier in [carrier for carrier in self._carriers if not carrier.live]:
                del self._carriers[carrier]
                self._missed = sum_of_known(self._missed, carrier.missed())

    def _begin_watch(self) -> None:
        """Start the guardian: not before it is needed.

        Only an attach starts it: whoever commits has one already.
        """
        if self._guardian is None:
            # A link is armed by now.
            from batchprobe.cleanup.guardian import Guardian  # noqa: PLC0415

            self._guardian = Guardian(self._mode)
            atexit.register(self.close)

    def _sweep(self) -> None:
        """Remove what dead processes left, once: nothing of it is in an attach's way."""
        if not self._swept:
            self._swept = True
            from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415

            sweep(Tracefs.find(), mode=self._mode)

    def _end_watch(self) -> None:
        """Dismiss the guardian once nothing can be left that it would have to remove."""
        with self._attaching:
            done = self._closed and not self._attach_depth
            if done and not self._probes and self._queue.is_idle and self._guardian is not None:
                self._guardian.dismiss()
                self._guardian = None
                atexit.unregister(self.close)

    def _reclaimed(self, count: int, total: int) -> None:
        if self._progress_error is None:
            try:
                self._progress("reclaim", count, total)
            except BaseException as error:
                self._progress_error = error

    def _adopt_strays(self) -> None:
        """Give hits of functions in modules that came later to their probes."""
        with self._lock:
            banks = [c.bank for c in self._carriers if c.live and c.bank.has_strays]
            unknown = [(bank, ip) for bank in banks for ip in bank.unknown_strays()]
            if not unknown:
                return
            table = self._symbols.table(Tracefs.find())
            waiting: dict[tuple[Bank, str, str], list[Probe]] = {}
            for probe in self._probes:
                target = probe.target
                if probe.state is not ProbeState.DETACHED and target.module:
                    waiting.setdefault((probe.bank, target.module, target.name), []).append(probe)
            adapter = arch.current()
            for bank, ip in unknown:
                place = table.function_at(ip)
                if place is None:
                    continue
                function = place[0]
                for probe in waiting.get((bank, function.module, function.name), ()):
                    if ip in hit_ips(probe, function, adapter):
                        bank.adopt(ip, probe.slot)


class _Symbols:
    """The function table, made again only when modules came or went."""

    def __init__(self) -> None:
        self._table: FunctionTable | None = None
        self._loaded = ""

    def table(self, tracefs: Tracefs) -> FunctionTable:
        self.memory = memory = BootMemory()
        if self._table is None or memory.loaded != self._loaded:
            self._table = FunctionTable.from_kernel(tracefs.root, memory=memory)
            self._loaded = memory.loaded
        return self._table


def _compiler() -> Compiler:
    from batchprobe.programs.compiler import Compiler  # noqa: PLC0415  (mostly nothing is compiled)

    return Compiler()


def _read_counts(probes: Iterable[Probe]) -> dict[Probe, int]:
    """Counts of live probes, each bank read once."""
    counts: dict[Bank, Counts] = {}
    result = {}
    for probe in probes:
        bank = probe.bank
        if bank not in counts:
            counts[bank] = bank.counts()
        result[probe] = counts[bank][probe.slot]
    return result


def _departures(probes: Sequence[Probe]) -> Iterator[Departure]:
    """Whose probes these are: those who leave together stand together in the queue."""
    at = 0
    while at < len(probes) and (departure := probes[at].departure) is not None:
        yield departure
        at += departure.size


def _specs(entries: Iterable[str | ProbeSpec]) -> list[ProbeSpec]:
    specs = []
    for number, entry in enumerate(entries, 1):
        spec = entry
        if isinstance(spec, str):
            parsed = parse_entry(spec, Source("<entries>", number))
            if parsed is None:
                continue
            spec = parsed
        specs.append(spec)
    return specs
