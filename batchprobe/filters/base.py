# SPDX-License-Identifier: Apache-2.0
"""What a filter is: C that tests a hit, with the numbers and maps it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from batchprobe.programs.maps import MapSpec
from batchprobe.programs.probe_maps import ProbeMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = ["Filter", "ProbeKind"]


class ProbeKind(Enum):
    """Which kind of probe an action or a filter needs."""

    AS_LISTED = "as listed"
    """Whatever each entry of the list asks for."""
    ENTRY = "entry"
    """kprobes; entries with %return are skipped."""
    RETURN = "return"
    """kretprobes, also for entries without %return; entries with an offset are skipped."""
    CALL = "entry and return"
    """Both, as one probe; %return means nothing, entries with an offset are skipped."""


class Filter:
    """Decides in the kernel which hits count. A hit that it rejects is ignored: neither
    counted nor missed.

    A subclass sets `name` and `source`; everything else has a default.
    """

    name: ClassVar[str]
    """A C identifier that no other filter of the session has."""
    source: ClassVar[str]
    """C as bcc takes it. Defines `static inline int NAME(struct pt_regs *ctx)`: not 0 if the hit
    counts. Runs under rcu_read_lock, possibly in an interrupt."""
    kind: ClassVar[ProbeKind] = ProbeKind.AS_LISTED

    def constants(self) -> Mapping[str, int]:
        """Numbers from 0 to 2^31 - 1 that `source` names in capitals and does not define.

        The loader puts them into the compiled code, so a number costs no compilation and no map
        lookup. Use them as they are: compare for equality, or assign.
        """
        return {}

    def maps(self) -> Sequence[MapSpec]:
        """Maps that `source` declares with one element, with the sizes to create them with."""
        return ()

    def fill(self, maps: ProbeMaps) -> None:
        """Set the initial contents of the filter's maps, before the gates open."""

    def start(self) -> None:
        """Create what all kernel objects of the session share. Called before each attach."""

    def shared(self) -> Mapping[str, int]:
        """Descriptors of maps from `start`, by the names that `source` declares."""
        return {}

    def stop(self) -> None:
        """Free what `start` created; no program uses it any more. May be called without `start`."""
