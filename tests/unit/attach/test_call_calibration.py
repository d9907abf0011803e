# SPDX-License-Identifier: Apache-2.0
"""What a trial of both ends of calls concludes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchprobe.attach import call_calibration, kprobe_session
from batchprobe.attach.call_calibration import Calls, _best, _wrong, measured
from batchprobe.errors import UnsupportedError
from batchprobe.functions.cache import SymbolCache


def trial(hits: int, *unfinished: int) -> str:
    """The verdict on a trial with these hits, and unfinished calls by the time of asking."""
    values = iter(unfinished)
    attachment: Any = SimpleNamespace(
        live=[SimpleNamespace(slot=1)],
        snapshot=lambda: {1: next(values)},
        maps=SimpleNamespace(hits_of=lambda _slot: hits),
    )
    context: Any = SimpleNamespace(action=SimpleNamespace(unfinished=lambda value: value))
    return _wrong(attachment, context)


def test_all_calls_returned() -> None:
    assert trial(400, 0) == ""
    # Another task was in a call.
    assert trial(402, 2, 1, 0) == ""


def test_every_run_was_taken_for_an_entry() -> None:
    assert trial(800, 400, 400, 400, 400, 400) == "400 of 800 calls did not return"


def test_every_run_was_taken_for_a_return() -> None:
    assert trial(0, 0) == "it saw 0 of 400 calls"


class Context:
    """Records what is explained."""

    def __init__(self, session_is_return: int = 0) -> None:
        self.session_is_return = session_is_return
        self.explained: list[str] = []
        self.explain = self.explained.append

    def with_changes(self, session_is_return: int) -> Context:
        return Context(session_is_return)


@pytest.mark.parametrize("works", [True, False])
def test_a_session_that_works_is_preferred(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    two = Calls(stack_moves=8, probe_ns=900)
    one = Calls(stack_moves=8, probe_ns=800, session_is_return=71234)

    def tried(_abi: str, context: Context, _discard: object) -> Calls:
        return two if not context.session_is_return else one if works else Calls()

    monkeypatch.setattr(call_calibration, "_tried", tried)
    monkeypatch.setattr(kprobe_session, "is_return_id", lambda: 71234)
    context: Any = Context()
    assert _best("multi", context, lambda _: None) == (one if works else two)
    assert _best("event", context, lambda _: None) == two


def test_each_action_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    costs = iter((200, 1500))
    monkeypatch.setattr(call_calibration, "_best", lambda *_: Calls(8, next(costs)))
    cache = SymbolCache(tmp_path, lambda: "these modules")

    def cost(action: str) -> int:
        context: Any = SimpleNamespace(action=SimpleNamespace(name=action))
        return measured("multi", context, cache, lambda _: None).probe_ns

    assert [cost("latency"), cost("call-stacks")] == [200, 1500]
    # Kept, of each.
    assert [cost("latency"), cost("call-stacks")] == [200, 1500]


def test_a_kernel_without_sessions_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> int:
        raise UnsupportedError("this kernel has no BTF")

    monkeypatch.setattr(call_calibration, "_tried", lambda *_: Calls(stack_moves=8))
    monkeypatch.setattr(kprobe_session, "is_return_id", missing)
    context: Any = Context()
    assert _best("multi", context, lambda _: None) == Calls(stack_moves=8)
    assert context.explained == ["no link for both ends of calls: this kernel has no BTF"]
