# SPDX-License-Identifier: Apache-2.0
"""Stacks with their weights, as all writers of stacks take them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from batchprobe._util.counted import counted
from batchprobe._util.printable import printable
from batchprobe.actions.latency import shown_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Stack = tuple["Frame", ...]
    """From the outermost frame (root) to the innermost (leaf)."""

__all__ = ["UNKNOWN", "Frame", "Profile", "printable", "shown_share"]


class Frame(NamedTuple):
    """One call on a stack: `vfs_read`, `vfs_read+0x1c`, or `libc.so.6!read` of user space."""

    name: str
    is_kernel: bool

    @property
    def function(self) -> str:
        """The name without the offset."""
        return self.name.partition("+0x")[0]


UNKNOWN = Frame("[unknown]", is_kernel=False)
"""Stands for what has no name, and for a stack without frames."""


class Profile:
    """Stacks by their weight: the number of calls, or the time that they took in nanoseconds.

    `lost` is the number of stacks that were hit and could not be recorded. Stacks without weight
    are dropped.
    """

    __slots__ = ("lost", "stacks", "title", "total", "unit")

    def __init__(
        self,
        title: str,
        stacks: Mapping[Stack, int],
        *,
        unit: Literal["calls", "ns"] = "calls",
        lost: int = 0,
    ) -> None:
        """Raises ValueError if a weight is negative."""
        self.title = title
        self.unit = unit
        self.lost = lost
        self.stacks: dict[Stack, int] = {}
        for stack, weight in stacks.items():
            if weight < 0:
                raise ValueError(f"the weight of a stack is {weight}")
            if weight:
                named = stack or (UNKNOWN,)
                self.stacks[named] = self.stacks.get(named, 0) + weight
        self.total = sum(self.stacks.values())

    def by_name(self) -> Iterator[tuple[Stack, int]]:
        """The stacks, those with a common root beside each other; always in the same order."""
        return iter(sorted(self.stacks.items()))

    def by_weight(self) -> list[tuple[Stack, int]]:
        """The stacks, heaviest first."""
        return sorted(self.stacks.items(), key=lambda item: (-item[1], item[0]))

    def shown(self, weight: int) -> str:
        """`3 calls`, or a time with its unit."""
        return shown_time(weight) if self.unit == "ns" else counted(weight, "call")

    def share(self, weight: int) -> str:
        """`12.3 %` of the total."""
        return shown_share(weight, self.total)


def shown_share(part: int, whole: int) -> str:
    """`12.3 %`; what is not nothing is not shown as 0."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"
