# SPDX-License-Identifier: Apache-2.0
"""Events on their way through the probes of a session."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from batchprobe.live_probes import LiveProbes

AT_ONCE = 4096


class Full:
    """An attachment whose buffer always has more events, of which it hands out some at a time."""

    def __init__(self) -> None:
        self.taken = 0

    def events(self) -> Iterator[Any]:
        begin = self.taken
        self.taken += AT_ONCE
        return iter(range(begin, self.taken))


def test_events_that_a_caller_leaves_do_not_pile_up() -> None:
    live, full = LiveProbes(cast(Any, None)), Full()
    assert live.add([], [cast(Any, full)])
    seen: list[Any] = []
    for _ in range(50):
        seen += islice(live.events(), 1000)
        # The rest stays in the kernel's buffer, which says when it is full.
        assert full.taken - len(seen) < AT_ONCE
    assert seen == list(range(50_000))


def test_a_call_takes_more_than_what_was_left() -> None:
    live, full = LiveProbes(cast(Any, None)), Full()
    assert live.add([], [cast(Any, full)])
    seen: list[Any] = list(islice(live.events(), 1000))
    seen += islice(live.events(), 2 * AT_ONCE)
    assert seen == list(range(1000 + 2 * AT_ONCE))
