# SPDX-License-Identifier: Apache-2.0
"""What is set up in the process of a tool, and what is said when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from batchprobe.bcc import tool
from batchprobe.bcc.batch import Summary
from batchprobe.errors import ExitStatus
from batchprobe.filters.children import Children
from batchprobe.filters.pid import Pid
from batchprobe.filters.word import as_word


class FakeInstalled:
    """What `prepare` made, without bcc."""

    last: FakeInstalled

    def __init__(
        self,
        make_session: Callable[[], Any],
        at_end: Callable[[Summary], None],
        *,
        is_filtered: bool,
    ) -> None:
        self.library = self
        self.has_loaded = True
        self.make_session = make_session
        self.at_end = at_end
        self.is_filtered = is_filtered
        FakeInstalled.last = self


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each session was asked for."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(tool, "ToolSession", lambda **asked: made.append(asked))
    monkeypatch.setattr(tool, "Installed", FakeInstalled)
    monkeypatch.setattr(tool, "set_name", lambda _name: None)
    monkeypatch.setattr("gc.freeze", lambda: None)
    return made


def prepared(scope: str = "", *, quiet: bool = False) -> FakeInstalled:
    tool.prepare("auto", "entry", "normal", quiet=quiet, scope=scope, tool="/usr/bin/tool")
    return FakeInstalled.last


def test_without_a_scope_nothing_is_filtered(sessions: list[dict[str, Any]]) -> None:
    installed = prepared()
    assert not installed.is_filtered
    installed.make_session()
    plain = {"filters": (), "abi": "auto", "placement": "entry", "barrier": "normal"}
    assert sessions == [plain, plain]


def test_each_session_has_the_filters_of_the_scope(sessions: list[dict[str, Any]]) -> None:
    installed = prepared(as_word([Pid(7, 8), Children()]))
    assert installed.is_filtered
    installed.make_session()
    for asked in sessions:
        pid, children = asked["filters"]
        assert isinstance(children, Children)
        assert pid.pids == (7, 8)


def test_a_scope_that_means_nobody_any_more_ends_the_tool(
    sessions: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        prepared('{"cpu": [4096]}')
    assert end.value.code == ExitStatus.USAGE
    assert "error: no CPU 4096" in capsys.readouterr().err
    assert sessions == []


@pytest.mark.parametrize(
    ("quiet", "lines"),
    [
        (
            False,
            [
                "2 threads could not be followed: their hits are missing",
                "nothing to batch; unfiltered: 1 uprobe",
            ],
        ),
        (
            True,
            ["2 threads could not be followed: their hits are missing", "unfiltered: 1 uprobe"],
        ),
    ],
)
def test_what_falsifies_the_output_is_always_said(
    quiet: bool,
    lines: list[str],
    sessions: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tool, "say", said.append)
    monkeypatch.setattr(Children, "lost", 2)
    installed = prepared(as_word([Pid(7), Children()]), quiet=quiet)
    summary = Summary()
    summary.note_unfiltered("uprobe")
    installed.at_end(summary)
    assert said == lines


def test_quiet_says_nothing_else(
    sessions: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tool, "say", said.append)
    prepared(as_word([Pid(7)]), quiet=True).at_end(Summary())
    assert said == []
    prepared().at_end(Summary())
    assert said == ["nothing to batch"]
