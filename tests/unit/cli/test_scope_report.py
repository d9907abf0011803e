# SPDX-License-Identifier: Apache-2.0
"""What -v says of the processes that were followed."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from batchprobe.cli import followed
from batchprobe.cli.args import AttachOptions
from batchprobe.cli.family import Followed
from batchprobe.cli.scope import Scope


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is all that the kernel reports."""
    found: Any = SimpleNamespace(
        processes=lambda: [Followed(7, 1, "sh")],
        not_kept=0,
        overruns=0,
        unavailable="",
        wait=lambda _seconds: True,
        close=lambda: None,
    )
    monkeypatch.setattr(followed, "FollowedProcesses", lambda _roots: found)


@pytest.mark.parametrize(
    ("field", "more"),
    [("pid", []), ("tid", ["those that a thread of --tid started are not among them"])],
)
def test_what_a_thread_starts_is_not_named(field: str, more: list[str]) -> None:
    options = AttachOptions(children=True, verbose=True, **{field: [os.getpid()]})
    with Scope(options) as scope:
        scope.watch()
        assert list(scope.report()) == [
            "1 process followed",
            "  7 sh, child of 1: still running",
            *more,
        ]
