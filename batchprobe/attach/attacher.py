# SPDX-License-Identifier: Apache-2.0
"""From entries of a list to attached probes: resolve, load programs, attach; undo on failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from batchprobe import arch
from batchprobe._util.counted import counted
from batchprobe.actions.base import Action
from batchprobe.actions.count import Count
from batchprobe.actions.loader import ProgramLoader, Progress, check_names, required_kind
from batchprobe.attach.abis import ABIS
from batchprobe.attach.base import AttachContext, Attachment, Placement
from batchprobe.attach.outcome import AttachOutcome
from batchprobe.attach.select import select
from batchprobe.commit.queue import RemovalFailure
from batchprobe.errors import NothingAttachedError, UnsupportedError
from batchprobe.filters.base import Filter, ProbeKind
from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import ProbeSpec, Source
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.resolve import resolve
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Reason, Resolution, Skipped
from batchprobe.kernel.host import require_tracing
from batchprobe.kernel.kcore import Kcore
from batchprobe.probe import Probe

__all__ = ["ENTRIES", "Attacher", "Progress", "numbered", "parse"]

ENTRIES = "<entries>"
"""Stands for a file in the source of entries that a caller gives."""


class Attacher:
    """Attaches probes for a session, and remembers what one attach can spare the next.

    `discard` reclaims attachments whose results nobody will read. `guard`, `group`, `reclaimed`,
    `expedites` and `expedited_grace_periods` are as in `AttachContext`.
    """

    def __init__(
        self,
        *,
        action: Action,
        filters: Sequence[Filter],
        abi: str,
        placement: Placement,
        group: str,
        guard: Callable[[], None],
        expedited_grace_periods: Callable[[], AbstractContextManager[None]],
        expedites: Callable[[], bool],
        discard: Callable[[Sequence[Attachment]], None],
        progress: Progress,
        reclaimed: Callable[[int, int], None],
        explain: Callable[[str], None],
    ) -> None:
        if abi != "auto" and abi not in ABIS:
            raise ValueError(f"no probe ABI {abi!r}: auto, {', '.join(ABIS)}")
        if abi == "multi" and placement is Placement.AFTER:
            raise ValueError(
                "the probes of a kprobe_multi link stand at a function's entry: placement after "
                "needs the ABI event, perf or auto"
            )
        if filters:
            from batchprobe.filters.scope import combined  # noqa: PLC0415  (most runs have none)

            filters = combined(filters)
        check_names(action, filters)
        self._action = action
        self._filters = filters
        self._kind = required_kind(action, filters)
        self._abi = abi
        self._placement = placement
        self._group = group
        self._guard = guard
        self._expedited_grace_periods = expedited_grace_periods
        self._expedites = expedites
        self._discard = discard
        self._progress = progress
        self._reclaimed = reclaimed
        self._explain = explain
        self.symbols = KernelSymbols()
        # By action. Entered again, a loader has its programs at once.
        self._loaders: dict[str, ProgramLoader] = {}
        self._distrusted: dict[str, Mapping[str, str]] = {}
        self.skipped: list[Skipped] = []
        """Entries that became no probe, of all attaches."""
        self.omitted: dict[Reason, int] = {}
        """Functions that patterns matched and that got no probe, of all attaches."""

    @property
    def distrusted(self) -> dict[tuple[str, str], str]:
        """By ABI and placement (or "return"): why such probes would count wrongly here."""
        return {
            (abi, placement): wrong
            for abi, placements in self._distrusted.items()
            for placement, wrong in placements.items()
        }

    def attach(
        self,
        specs: Sequence[ProbeSpec],
        check: Callable[[], None],
        action: Action | None = None,
    ) -> tuple[list[Probe], list[Attachment]]:
        """Attach a probe to every function that the entries name; `check` raises to cancel.
        `action` replaces that of the session, which must be Count then.

        Whatever it raises, no kernel object stays, except what `discard` has to retry.
        Raises UnsupportedError, NothingAttachedError, ValueError, and what `check` raises.
        """
        if action is None:
            action = self._action
        elif not isinstance(self._action, Count):
            raise ValueError(f"a session with the action {self._action.name} runs no other program")
        check()
        require_tracing()
        adapter = arch.current()
        loader = self._loaders.get(action.name) or ProgramLoader(adapter, action, self._filters)
        # bcc compiles in a child process while the symbols are read.
        with loader:
            self._progress("resolve", 0, 1)
            table = self.symbols.table()
            found = self._resolve(specs, table, adapter, check)
            check()
            lacks = self._prepare(found, action)
            if not found.targets:
                self._note(found, ())
                raise NothingAttachedError(
                    lacks or "no entry of the list names a function to probe"
                )
            programs = loader.get(check, self._progress)
            for one in self._sharers(action):
                one.start()
        self._loaders[action.name] = loader
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            # Another ABI tries again what one refuses.
            done = min(done + count, len(found.targets))
            self._progress("attach", done, len(found.targets))
            check()

        # A link attaches all in one call, and reports nothing meanwhile.
        progress(0)
        kcore = Kcore()
        context = AttachContext(
            arch=adapter,
            kcore=kcore,
            table=table,
            programs=programs,
            action=action,
            filters=self._filters,
            placement=self._placement,
            taken={target.address for target in found.targets if target.address and target.offset},
            group=self._group,
            expedited_grace_periods=self._expedited_grace_periods,
            guard=self._guard,
            expedites=self._expedites,
            progress=progress,
            reclaimed=self._reclaimed,
            explain=self._explain,
        )
        try:
            return self._attach(found, context)
        finally:
            kcore.close()

    def close(self) -> None:
        """Free what action and filters share. Nothing is attached any more."""
        for one in self._sharers(self._action):
            one.stop()

    def _sharers(self, action: Action) -> Iterator[Action | Filter]:
        yield action
        yield from self._filters

    def _resolve(
        self,
        specs: Sequence[ProbeSpec],
        table: FunctionTable,
        adapter: arch.Arch,
        check: Callable[[], None],
    ) -> Resolution:
        unfit: Sequence[Skipped] = ()
        if self._kind is not ProbeKind.AS_LISTED:
            from batchprobe.attach.probe_kind import as_kind  # noqa: PLC0415  (few need it)

            specs, unfit = as_kind(specs, self._kind)
        prefixes = adapter.syscall_prefixes
        found = resolve(specs, table, syscall_prefixes=prefixes, check=check)
        found.skipped.extend(unfit)
        self._progress("resolve", 1, 1)
        return found

    def _prepare(self, found: Resolution, action: Action) -> str:
        """Leave out functions that the action has nothing to ask of; returns a sentence about those
        that no skip names, empty if there are none.
        """
        refused = action.prepare(found.targets, self.symbols)
        if not refused:
            return ""
        unnamed = [target for target in refused if target.spec.is_pattern]
        found.targets = [target for target in found.targets if target not in refused]
        for target, why in refused.items():
            spec = target.spec
            if spec.is_pattern:
                found.omitted[Reason.LACKS] = found.omitted.get(Reason.LACKS, 0) + 1
                self._explain(f"{target.label}: {why}")
            else:
                label = target.label if target.label != str(spec) else ""
                found.skipped.append(Skipped(spec.text, spec.source, Reason.LACKS, why, label))
        if not unnamed:
            return ""
        functions = counted(len(unnamed), "function")
        return (
            f"{functions} {Reason.LACKS.value}, such as {unnamed[0].label}: {refused[unnamed[0]]}"
        )

    def _attach(
        self, found: Resolution, context: AttachContext
    ) -> tuple[list[Probe], list[Attachment]]:
        attached = AttachOutcome()
        try:
            probes, refused = select(
                found.targets,
                context,
                attached,
                abi=self._abi,
                calibrated=lambda abi: self._calibrated(abi, context),
            )
        except BaseException:
            self._discard(attached.attachments + attached.abandoned)
            raise
        self._discard(attached.abandoned)
        self._note(found, refused)
        if not probes:
            raise NothingAttachedError("the kernel took none of the probes") from attached.error
        return probes, attached.attachments

    def _calibrated(self, abi: str, context: AttachContext) -> AttachContext:
        """The context for this ABI, as trying it shows."""
        context = context.with_changes(distrusted=self._distrust(abi, context))
        if context.action.kind is ProbeKind.CALL:
            from batchprobe.attach.call_calibration import measured  # noqa: PLC0415 (few need it)

            calls = measured(abi, context, self.symbols.cache, self._discard)
            if calls.probe_ns:
                context.action.note_cost(abi, calls.probe_ns)
            context = context.with_changes(
                stack_moves=calls.stack_moves, session_is_return=calls.session_is_return
            )
        return context

    def _distrust(self, abi: str, context: AttachContext) -> Mapping[str, str]:
        """Placements of this ABI that count wrongly. A clean result is cached until a module is
        loaded or unloaded, or the machine reboots.
        """
        if abi not in self._distrusted:
            wrong: dict[str, str] = {}

            def look() -> bytes | None:
                wrong.update(self._calibrate(abi, context))
                return None if wrong else b"as described"

            if self.symbols.cache is not None:
                self.symbols.cache.text(f"calibration-{abi}", look)
            self._distrusted[abi] = wrong
        return self._distrusted[abi]

    def _calibrate(self, abi: str, context: AttachContext) -> dict[str, str]:
        from batchprobe.attach import calibration  # noqa: PLC0415  (once a boot)

        try:
            probed = calibration.target(context.table)
        except UnsupportedError as error:
            context.explain(f"not calibrated, the adapter is taken at its word: {error}")
            return {}
        variants = [variant for variant in calibration.VARIANTS if variant.abi == abi]

        def discard(attachments: Sequence[Attachment]) -> Sequence[RemovalFailure]:
            self._discard(attachments)
            return ()

        tries = calibration.calibrate(context, probed, variants, discard)
        return {variant.placement: finding.wrong for variant, finding, _ in tries if finding.wrong}

    def _note(self, found: Resolution, refused: Sequence[Skipped]) -> None:
        self.skipped += [*found.skipped, *refused]
        for reason, count in found.omitted.items():
            self.omitted[reason] = self.omitted.get(reason, 0) + count


def parse(entries: Iterable[str | ProbeSpec]) -> list[ProbeSpec]:
    """Entries as a caller gives them. Raises SpecError for a malformed one."""
    return [spec for _, spec in numbered(entries)]


def numbered(entries: Iterable[str | ProbeSpec]) -> Iterator[tuple[int, ProbeSpec]]:
    """Entries with their position, from 1; a string may hold several."""
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, str):
            yield from ((number, spec) for spec in parse_line(entry, Source(ENTRIES, number)))
        else:
            yield number, entry
