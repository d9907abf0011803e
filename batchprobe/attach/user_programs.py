# SPDX-License-Identifier: Apache-2.0
"""Entries with the programs that run on their hits."""

from __future__ import annotations

from collections.abc import Iterable

from batchprobe.actions.user_program import UserPrograms
from batchprobe.attach.attacher import ENTRIES, numbered, parse
from batchprobe.funclist.spec import ProbeSpec, Source
from batchprobe.programs.user_program import UserProgram

__all__ = ["parse_with_programs"]


def parse_with_programs(
    entries: Iterable[str | ProbeSpec], program: object
) -> tuple[list[ProbeSpec], UserPrograms]:
    """Entries, and the action that runs their programs: one for all, or a list with one for each.
    Where several entries mean one place, the program of the first runs.

    Raises SpecError for a malformed entry, TypeError for what is no program, ValueError for a list
    of another length.
    """
    if not isinstance(program, list | tuple):
        one = UserProgram.of(program)
        return parse(entries), UserPrograms(lambda _probe: one)
    entries = list(entries)
    if len(program) != len(entries):
        raise ValueError(f"{len(program)} programs for {len(entries)} entries")
    programs = [UserProgram.of(each) for each in program]
    # The position of its entry is all that a spec keeps on its way to a probe.
    specs = [
        spec.with_changes(source=Source(ENTRIES, number)) for number, spec in numbered(entries)
    ]
    return specs, UserPrograms(lambda probe: programs[probe.target.spec.source.line - 1])
