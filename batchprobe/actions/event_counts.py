# SPDX-License-Identifier: Apache-2.0
"""What became of the hits of a function whose hits are recorded."""

from __future__ import annotations

__all__ = ["EventCounts"]


class EventCounts:
    """What became of the hits of one function.

    `emitted` have an event. `lost` found no room, neither for the event nor for what was read at
    the entry; `unwanted` did not meet the condition; `limited` came after the limit, or too fast.
    Of calls, `missed` have a return that the kernel missed, and `unfinished` were running when the
    probe was detached. Together they are the hits.
    """

    __slots__ = ("emitted", "limited", "lost", "missed", "unfinished", "unwanted")

    def __init__(
        self,
        emitted: int = 0,
        lost: int = 0,
        unwanted: int = 0,
        limited: int = 0,
        missed: int = 0,
        unfinished: int = 0,
    ) -> None:
        self.emitted = emitted
        self.lost = lost
        self.unwanted = unwanted
        self.limited = limited
        self.missed = missed
        self.unfinished = unfinished

    def _all(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in self.names())

    @staticmethod
    def names() -> tuple[str, ...]:
        """What it has, in order."""
        return ("emitted", "lost", "unwanted", "limited", "missed", "unfinished")

    def __bool__(self) -> bool:
        return any(self._all())

    def __sub__(self, earlier: EventCounts) -> EventCounts:
        found = EventCounts()
        for name in self.names():
            setattr(found, name, getattr(self, name) - getattr(earlier, name))
        found.unfinished = self.unfinished
        return found

    def __repr__(self) -> str:
        parts = (f"{value} {name}" for name, value in zip(self.names(), self._all(), strict=True))
        return f"<EventCounts {', '.join(parts)}>"
