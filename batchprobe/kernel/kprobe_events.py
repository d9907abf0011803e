# SPDX-License-Identifier: Apache-2.0
"""Reads the lines of kprobe_events."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Definition", "parse"]


class Definition(NamedTuple):
    """A line of kprobe_events: a probe and the event it belongs to."""

    is_return: bool
    group: str
    event: str
    location: str


def parse(text: str) -> list[Definition]:
    """Parse kprobe_events, skipping lines that do not define kprobes."""
    found = []
    for line in text.split("\n"):
        # For example "r4:group/event location arguments".
        head, _, rest = line.partition(" ")
        kind, _, name = head.partition(":")
        group, _, event = name.partition("/")
        if kind[:1] in ("p", "r") and event:
            found.append(Definition(kind[0] == "r", group, event, rest.partition(" ")[0]))
    return found
