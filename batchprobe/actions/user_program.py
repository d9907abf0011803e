# SPDX-License-Identifier: Apache-2.0
"""UserPrograms: each hit that counts runs a program of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from batchprobe.actions.base import Action, Reader
from batchprobe.actions.count import HitsReader
from batchprobe.errors import KernelError
from batchprobe.probe import Probe
from batchprobe.programs.maps import MapSpec, SlotLayout
from batchprobe.programs.probe_maps import ProbeMaps
from batchprobe.programs.user_program import UserProgram

__all__ = ["UserPrograms"]

_MAP = "targets"


class UserPrograms(Action):
    """Calls a program on each hit, after the gate and the filters, and counts the hit.

    The program gets the registers that a kprobe of its own would get. After the commit it does not
    run any more for a detached probe, because its gate is closed.
    """

    name = "program"
    unit = "hits"
    source = """
BPF_PROG_ARRAY(targets, 1);
static inline void on_hit(struct pt_regs *ctx, u64 slot, u32 cell)
{
	targets.call(ctx, slot);
}
"""

    def __init__(self, program_of: Callable[[Probe], UserProgram] | None = None) -> None:
        """`program_of` says which program a probe runs; without it the action can only be
        compiled.
        """
        self._program_of = program_of or _no_program

    def maps(self, layout: SlotLayout) -> Sequence[MapSpec]:
        """A place for the program of each slot."""
        return [MapSpec.programs(_MAP, layout.slots + 1)]

    def needs_entry(self, probe: Probe) -> bool:
        """Whether its program asks the kernel which function was hit."""
        return self._program_of(probe).needs_entry

    def fill(
        self, maps: ProbeMaps, probes: Sequence[Probe], attach_type: int
    ) -> Iterator[tuple[Probe, KernelError]]:
        """Put the programs in place; returns probes whose program cannot be called."""
        by_program: dict[UserProgram, list[Probe]] = {}
        for probe in probes:
            by_program.setdefault(self._program_of(probe), []).append(probe)
        for program, those in by_program.items():
            try:
                with program.loaded_for(attach_type) as fd:
                    _put(program, fd, maps, those)
            except KernelError as error:
                yield from ((probe, error) for probe in those)

    def reader(self, maps: ProbeMaps) -> Reader:
        """Hands the hits on."""
        del maps
        return HitsReader()


def _put(program: UserProgram, fd: int, maps: ProbeMaps, probes: Sequence[Probe]) -> None:
    try:
        for probe in probes:
            maps.set_program(_MAP, probe.slot, fd)
    except KernelError as error:
        raise program.explain(error) from error


def _no_program(probe: Probe) -> UserProgram:
    raise LookupError(f"no program for {probe.label}")
