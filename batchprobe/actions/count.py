# SPDX-License-Identifier: Apache-2.0
"""Count: the value of a probe is its hits."""

from __future__ import annotations

from batchprobe.actions.base import Action, Reader
from batchprobe.programs.probe_maps import Hits, ProbeMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.probe import Snapshot

__all__ = ["Count", "HitsReader"]


class Count(Action):
    """Counts hits, which every action does: it adds no code and no map."""

    name = "count"
    unit = "hits"

    def reader(self, maps: ProbeMaps) -> Reader:
        """Hands the hits on."""
        del maps
        return HitsReader()


class HitsReader(Reader):
    """Reads no map of its own: the values are the hits."""

    def snapshot(self, hits: Hits) -> Snapshot:
        return hits.totals()
