# SPDX-License-Identifier: Apache-2.0
"""Stacks: from where functions are called, by the number of calls or the time in them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from batchprobe import arch
from batchprobe.actions.base import Action, Column, Reader
from batchprobe.actions.call_stacks import CallStacks
from batchprobe.actions.event_records import error_name
from batchprobe.actions.results import Results
from batchprobe.errors import KernelError
from batchprobe.filters.base import ProbeKind
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe
from batchprobe.programs.maps import CELL_SIZE, MapSpec, SlotLayout, lift_memlock_limit
from batchprobe.programs.probe_maps import Hits, ProbeMaps
from batchprobe.programs.source import read_bpf
from batchprobe.sys import bpf, fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CallStack", "CallTimeStacks", "StackSum", "StackSums", "Stacks"]

# As in bpf/stacks.h: struct stack in u64, stack_key, stack_sum.
_STACK = 128
_KEY = struct.Struct("=QQIIII16s")
_SUM = struct.Struct("=QQ")
_MAX_STACKS = 1 << 13
"""Different stacks: 8 MB."""
_MAX_SUMS = 1 << 15
_MAX_SAVED = 1 << 14


class CallStack(NamedTuple):
    """Addresses from the traced function to the outermost caller."""

    kernel: tuple[int, ...]
    user: tuple[int, ...] = ()
    """Empty if it was not asked for, as `pid` is 0 then."""
    pid: int = 0
    comm: str = ""
    error: str = ""
    """The name of the error that the calls returned, if only those count."""


class StackSum(NamedTuple):
    """Calls from one stack, and the time in them without that in traced functions they called."""

    calls: int
    time_ns: int = 0


class StackSums(Mapping[CallStack, StackSum]):
    """The stacks of one function; `lost` calls have none, because there was no room, and
    `unfinished` ones had not returned.
    """

    __slots__ = ("_found", "lost", "unfinished")

    def __init__(
        self, found: Mapping[CallStack, StackSum], lost: int = 0, unfinished: int = 0
    ) -> None:
        self._found = found
        self.lost = lost
        self.unfinished = unfinished

    def __getitem__(self, stack: CallStack) -> StackSum:
        return self._found[stack]

    def __iter__(self) -> Iterator[CallStack]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __bool__(self) -> bool:
        return bool(self._found or self.lost)

    @property
    def total(self) -> StackSum:
        """Of all stacks."""
        return StackSum(
            sum(one.calls for one in self._found.values()),
            sum(one.time_ns for one in self._found.values()),
        )

    def __sub__(self, earlier: StackSums) -> StackSums:
        """What came since."""
        none = StackSum(0)
        found = {
            stack: StackSum(now.calls - was.calls, now.time_ns - was.time_ns)
            for stack, now in self.items()
            if (was := earlier.get(stack, none)) != now
        }
        # Calls that are open now, not since.
        return StackSums(found, self.lost - earlier.lost, self.unfinished)

    def __repr__(self) -> str:
        return f"<StackSums {self.total.calls} calls from {len(self)} stacks>"


class Stacks(Action):
    """Counts calls by the stack at the function's entry."""

    name = "stacks"
    unit = "functions"
    source = f"#include <uapi/linux/ptrace.h>\n{read_bpf('stacks.h', 'hit_stacks.h')}"
    kind = ProbeKind.ENTRY
    knows_unfinished = False

    def __init__(self, *, user: bool = False) -> None:
        """With `user`, stacks are those of processes, and go on in user space."""
        self._user = user
        self._stacks = -1

    @property
    def columns(self) -> Sequence[Column]:
        """How many stacks, and how many calls."""
        return (
            Column("CALLS", lambda value: value.total.calls),
            Column("STACKS", len),
        )

    def to_json(self, value: Any) -> object:
        """A list of stacks; addresses in hex."""
        return [
            {
                "kernel": [f"{ip:#x}" for ip in stack.kernel],
                **({"user": [f"{ip:#x}" for ip in stack.user]} if stack.user else {}),
                **({"pid": stack.pid, "comm": stack.comm} if stack.pid else {}),
                **({"error": stack.error} if stack.error else {}),
                "calls": one.calls,
                **({"time_ns": one.time_ns} if one.time_ns else {}),
            }
            for stack, one in value.items()
        ]

    def constants(self) -> Mapping[str, int]:
        """Whether user space is looked at."""
        return {"USER_STACKS": int(self._user)}

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """Sums by stack."""
        hash_type = bpf.BPF_MAP_TYPE_HASH
        return [
            MapSpec.per_cpu("stack_scratch", _STACK),
            MapSpec.array("stacks_lost", layout.slots + 1),
            MapSpec("stack_sums", hash_type, _KEY.size, _SUM.size, _MAX_SUMS),
        ]

    def start(self) -> None:
        """Create the place for stacks, which all kernel objects share."""
        if self._stacks < 0:
            lift_memlock_limit()
            self._stacks = bpf.map_create(
                "stacks",
                bpf.BPF_MAP_TYPE_HASH,
                key_size=CELL_SIZE,
                value_size=_STACK * CELL_SIZE,
                entries=_MAX_STACKS,
            )

    def shared(self) -> Mapping[str, int]:
        """The stacks."""
        return {"stacks": self._stacks}

    def stop(self) -> None:
        """Free them."""
        if self._stacks >= 0:
            fds.close(self._stacks)
            self._stacks = -1

    def needs_entry(self, probe: Probe) -> bool:
        """On x86, a breakpoint reports an instruction pointer behind itself. Behind a `push` that
        was not executed yet the kernel unwinds wrongly; the patch site has none (ORC tables,
        arch/x86/kernel/unwind_orc.c).
        """
        del probe
        return bool(arch.current().ip_after_breakpoint)

    def reader(self, maps: ProbeMaps) -> Reader:
        """Reads the sums of one kernel object."""
        return _Reader(maps, self)

    def frames(self) -> Mapping[int, tuple[int, ...]]:
        """All stacks by their hash."""
        found = {}
        for key, value in bpf.map_items(self._stacks, CELL_SIZE, _STACK * CELL_SIZE):
            count, *ips = struct.unpack(f"={_STACK}Q", value)
            found[struct.unpack("=Q", key)[0]] = tuple(ips[:count])
        return found


class CallTimeStacks(Stacks):
    """Adds the time of calls, or counts those that fail, by the stack at the function's entry."""

    name = "call-stacks"
    source = (
        "#include <uapi/linux/ptrace.h>\n"
        f"{read_bpf('stacks.h', 'results.h', 'calls.h', 'call_stacks.h')}"
    )
    kind = ProbeKind.CALL

    def __init__(self, *, user: bool = False, only_errors: bool = False) -> None:
        """With `only_errors`, only calls that return an error count."""
        super().__init__(user=user)
        self._only_errors = only_errors
        # Calls that return no error are in no sum.
        self.knows_unfinished = not only_errors
        self._results = Results()
        self._calls = CallStacks(saved_size=_KEY.size, most_saved=_MAX_SAVED)

    def prepare(self, targets: Sequence[Target], symbols: KernelSymbols) -> Mapping[Target, str]:
        """Leave out functions that return no error, if that is what is asked for."""
        return self._results.prepare(targets, symbols) if self._only_errors else {}

    def notes(self) -> Sequence[str]:
        """As for Errors."""
        return self._results.notes()

    def unfinished(self, value: Any) -> int | None:
        """Calls that have not returned."""
        unfinished: int = value.unfinished
        return unfinished if self.knows_unfinished else None

    def constants_at_return(self) -> Mapping[str, int]:
        """Which calls count."""
        return {"ONLY_ERRORS": int(self._only_errors)}

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """As for Stacks, and what following calls takes."""
        return [*super().maps(layout), *CallStacks.maps(), Results.map(layout.slots)]

    def fill(
        self, maps: ProbeMaps, probes: Sequence[Probe], attach_type: int
    ) -> Iterable[tuple[Probe, KernelError]]:
        """Say what each function returns."""
        del attach_type
        self._results.fill(maps, probes)
        return ()

    def start(self) -> None:
        """Create the stacks of open calls too."""
        super().start()
        try:
            self._calls.start()
        except BaseException:
            self.stop()
            raise

    def shared(self) -> Mapping[str, int]:
        """All that they share."""
        return {**super().shared(), **self._calls.shared()}

    def stop(self) -> None:
        """Free it."""
        super().stop()
        self._calls.stop()


class _Reader(Reader):
    def __init__(self, maps: ProbeMaps, action: Stacks) -> None:
        self._maps = maps
        self._action = action

    def snapshot(self, hits: Hits) -> _Values:
        # After the sums, so that each has its stack.
        sums = self._maps.raw_items("stack_sums", _KEY.size, _SUM.size)
        frames = self._action.frames()
        found: dict[int, dict[CallStack, StackSum]] = {}
        for key, value in sums:
            kernel, user, slot, pid, error, _, comm = _KEY.unpack(key)
            stack = CallStack(
                frames.get(kernel, ()),
                frames.get(user, ()),
                pid,
                comm.split(b"\0", 1)[0].decode(errors="backslashreplace"),
                error_name(-error) if error else "",
            )
            calls, time_ns = _SUM.unpack(value)
            # Inserted, and not counted yet.
            if calls:
                of_slot = found.setdefault(slot, {})
                # Stacks of two keys are alike if their frames are unknown.
                was = of_slot.get(stack, StackSum(0))
                of_slot[stack] = StackSum(was.calls + calls, was.time_ns + time_ns)
        lost = self._maps.arrays["stacks_lost"]
        losses = memoryview(lost.cells.tobytes()).cast("Q") if lost else None
        return _Values(found, losses, hits if self._action.knows_unfinished else None)

    def lost(self) -> int:
        """Calls for which there was no room."""
        lost = self._maps.arrays["stacks_lost"]
        return sum(lost.cells) if lost is not None else 0


class _Values:
    """StackSums by slot."""

    def __init__(
        self,
        found: Mapping[int, Mapping[CallStack, StackSum]],
        lost: memoryview | None,
        hits: Hits | None,
    ) -> None:
        """`hits` is None where not every call ends up in a sum."""
        self._found = found
        self._lost = lost
        self._hits = hits

    def __getitem__(self, slot: int) -> StackSums:
        sums = StackSums(self._found.get(slot, {}), self._lost[slot] if self._lost else 0)
        if self._hits is not None:
            # A call may return between the two looks.
            sums.unfinished = max(self._hits[slot] - sums.total.calls - sums.lost, 0)
        return sums
