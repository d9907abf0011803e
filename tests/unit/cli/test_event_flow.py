# SPDX-License-Identifier: Apache-2.0
"""When a run with a limit is over."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from batchprobe.cli.event_flow import EventFlow


class FakeSession:
    """A session that has these events."""

    def __init__(self, limit: int | None) -> None:
        self.action = SimpleNamespace(limit=limit)
        self.left: list[int] = []

    def events(self) -> Iterator[Any]:
        while self.left:
            yield self.left.pop(0)


def flow_of(limit: int | None) -> tuple[EventFlow, FakeSession, Any, list[Any]]:
    """A flow, its session, its sink, and what the sink got."""
    session = FakeSession(limit)
    got: list[Any] = []
    sink = SimpleNamespace(event=got.append, events_over=lambda: None)
    return EventFlow(cast(Any, session)), session, sink, got


def test_events_over_the_limit_are_cut() -> None:
    flow, session, sink, got = flow_of(5)
    session.left = [1, 2, 3]
    flow.pass_some(sink)
    assert not flow.is_over
    session.left = [4, 5, 6]
    flow.pass_some(sink)
    assert flow.is_over
    flow.pass_all(sink)
    assert got == [1, 2, 3, 4, 5]


def test_without_a_limit() -> None:
    flow, session, sink, got = flow_of(None)
    session.left = list(range(1500))
    flow.pass_some(sink)
    assert (flow.is_over, flow.wait) == (False, 0.0)
    flow.pass_some(sink)
    assert not flow.is_over
    assert flow.wait > 0
    assert len(got) == 1500
