# SPDX-License-Identifier: Apache-2.0
"""Reads the lines of kprobe_events."""

from __future__ import annotations

__all__ = ["Definition", "parse"]


class Definition:
    """A line of kprobe_events: a probe and the event it belongs to."""

    __slots__ = ("event", "group", "is_return", "location")

    def __init__(self, *, is_return: bool, group: str, event: str, location: str) -> None:
        self.is_return = is_return
        self.group = group
        self.event = event
        self.location = location


def parse(text: str) -> list[Definition]:
    """Parse kprobe_events, skipping lines that do not define kprobes."""
    found = []
    for line in text.split("\n"):
        # For example "r4:group/event location arguments".
        head, _, rest = line.partition(" ")
        kind, _, name = head.partition(":")
        group, _, event = name.partition("/")
        if kind[:1] in ("p", "r") and event:
            location = rest.partition(" ")[0]
            found.append(
                Definition(is_return=kind[0] == "r", group=group, event=event, location=location)
            )
    return found
