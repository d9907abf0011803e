"""What every probe ABI answers, and what it is given to work with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.programs.probe_maps import NO_SLOT, Bank

if TYPE_CHECKING:
    from batchprobe.arch import Arch
    from batchprobe.commit.queue import Reclaimed
    from batchprobe.functions.table import Function, FunctionTable
    from batchprobe.kernel.kcore import KernelText
    from batchprobe.kernel.tracefs import Tracefs
    from batchprobe.probe import Departure, Probe
    from batchprobe.programs.program import Program

__all__ = ["Attached", "Carrier", "Context", "Placement", "Refusal", "hit_ips", "sum_of_known"]

# A function longer than this is probed at its entry: its code is not read whole.
_LONGEST_FUNCTION = 1 << 16


class Placement(Enum):
    """Where an entry probe stands: at the function's entry or behind the entry patch site."""

    AUTO = "auto"
    ENTRY = "entry"
    AFTER = "after"


class Context(NamedTuple):
    """What an ABI needs to attach probes."""

    arch: Arch
    tracefs: Tracefs
    text: KernelText
    table: FunctionTable
    programs: Mapping[str, Program]
    placement: Placement
    # The group that this process's trace events live in.
    group: str
    # While in this block, grace periods are expedited, if they may be.
    short_waits: Callable[[], AbstractContextManager[None]]
    # Called before anything is made that the kernel does not remove when this process ends.
    guard: Callable[[], None]
    # Called with a number of probes that are attached; raises to give up.
    progress: Callable[[int], None]
    # Where probes of the ABI in use tell what they should not, each with what: `calibration`.
    distrusted: Mapping[str, str] = {}
    # Where an entry asks for an offset: no other probe of the same function may move there, since
    # the kernel takes a place once an event, and a hit's instruction pointer names one probe.
    taken: Collection[int] = ()
    # Whether waits are short, and so not worth any progress.
    expedites: Callable[[], bool] = lambda: True
    # Called during a slow reclaim with how many probes are removed, and of how many.
    reclaimed: Callable[[int, int], None] = lambda _done, _total: None

    def code(self, probe: Probe) -> bytes | None:
        """The code of the probe's function, None if it cannot be read."""
        function = probe.target.function
        if function is None or not 0 < function.size <= _LONGEST_FUNCTION:
            return None
        return self.text.read(function.address, function.size)

    def distrust(self, probe: Probe) -> str:
        """Why a probe of the ABI in use would count wrongly; empty if it would not."""
        if probe.target.is_return:
            return self.distrusted.get("return", "")
        # An entry probe may have another place: who places it looks.
        return self.distrusted.get("after", "") if probe.target.offset else ""


def hit_ips(probe: Probe, function: Function, arch: Arch) -> tuple[int, ...]:
    """What names a hit of the probe, now that its function is there: see `Arch`."""
    if probe.target.is_return:
        return arch.return_probe_ips(function.address, probe.offset)
    return arch.hit_ips(function.address, probe.offset)


def sum_of_known(*counts: int | None) -> int | None:
    """Their sum, None if any is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


class Refusal(NamedTuple):
    """A probe that this ABI, or the kernel under it, would not take."""

    probe: Probe
    # 0 where the ABI itself can't express the probe.
    errno: int
    detail: str


class Attached:
    """What attaching came to: an ABI fills it as it goes, so that an interrupt loses nothing."""

    def __init__(self) -> None:
        self.carriers: list[Carrier] = []
        self.refused: list[Refusal] = []
        # Carriers that ended with no probe: to be reclaimed.
        self.failed: list[Carrier] = []
        # Why an ABI could carry nothing of a kind.
        self.unsupported: UnsupportedError | None = None

    def carry(
        self,
        probes: Sequence[Probe],
        context: Context,
        make: Callable[[list[Probe], bool], Carrier],
    ) -> None:
        """`make` a carrier of the entry probes, and one of the return probes: kinds never mix.

        What it cannot attach is refused: those of the other kind may be attached by then.
        """
        for is_return in (False, True):
            wanted = [probe for probe in probes if probe.target.is_return is is_return]
            if context.distrusted:
                wanted = [probe for probe in wanted if self._trusts(probe, context)]
            if not wanted:
                continue
            try:
                carrier = make(wanted, is_return)
            except UnsupportedError as error:
                self._refuse(wanted, error)
                continue
            self.carriers.append(carrier)
            try:
                carrier.attach(context)
            except (KernelError, UnsupportedError) as error:
                self._refuse(wanted, error)
            else:
                self.refused += carrier.refused
                if carrier.live:
                    continue
            self.carriers.pop()
            if carrier.is_empty:
                # Only maps: nothing to wait for.
                carrier.reclaim(list(carrier.live))
            else:
                self.failed.append(carrier)

    def _trusts(self, probe: Probe, context: Context) -> bool:
        if wrong := context.distrust(probe):
            self.refused.append(Refusal(probe, 0, f"not trusted: {wrong}"))
        return not wrong

    def _refuse(self, probes: Sequence[Probe], error: KernelError | UnsupportedError) -> None:
        if isinstance(error, UnsupportedError):
            self.unsupported = error
        errno = error.errno if isinstance(error, KernelError) else 0
        self.refused += [Refusal(probe, errno, str(error)) for probe in probes]


class Carrier(ABC):
    """A kernel object, or a bundle of like ones, and the live probes it carries.

    Its bank lives as long as it does: who needs a count later takes it before the reclaim.
    Raises UnsupportedError where the bank cannot be had.
    """

    def __init__(self, probes: Sequence[Probe], *, ips: int, waits: bool = True) -> None:
        """`ips` is how many values of the instruction pointer may name one probe; it `waits` if
        what it carries may have no address yet, or lose it with its module.
        """
        self.bank = Bank(
            len(probes),
            addresses=ips * len(probes),
            strays=waits and any(probe.target.module for probe in probes),
        )
        for slot, probe in enumerate(probes, NO_SLOT + 1):
            probe.carrier, probe.slot = self, slot
        # In slot order; a dict, for a set has none.
        self.live = dict.fromkeys(probes)
        # That of all that it carries, if it went whole.
        self.departure: Departure | None = None
        # What it was given and the kernel would not take.
        self.refused: list[Refusal] = []

    @abstractmethod
    def attach(self, context: Context) -> None:
        """Attach `live`; what the kernel refuses moves to `refused`.

        Whatever it raises, `reclaim` undoes what it did.
        """

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether no kernel object carries anything."""

    @abstractmethod
    def reclaim(self, gone: Sequence[Probe]) -> Reclaimed:
        """See `batchprobe.commit.Carrier`. Once nothing is live, the bank is closed."""

    @abstractmethod
    def missed(self) -> int | None:
        """Hits that found a probe but were not counted; None where nobody can tell.

        For the event ABI it is known once the carrier is gone.
        """

    def _refuse(self, probe: Probe, error: KernelError) -> None:
        self.live.pop(probe, None)
        self.refused.append(Refusal(probe, error.errno, str(error)))

    def _bury(self, gone: Sequence[Probe]) -> None:
        for probe in gone:
            self.live.pop(probe, None)
