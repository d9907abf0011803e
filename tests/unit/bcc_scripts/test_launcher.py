# SPDX-License-Identifier: Apache-2.0
"""What is printed of a tool that fails."""

from __future__ import annotations

import sys
from io import StringIO

import pytest

from batchprobe.bcc.launcher import _report
from batchprobe.bcc.moments import Moments


def test_the_error_that_ends_a_tool_arms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = list[str]()
    printed = StringIO()
    monkeypatch.setattr(sys, "stderr", printed)
    moments = Moments(lambda: armed.append("armed"), lambda: 0.0)
    moments.begin()
    try:
        print("a line of the tool", file=sys.stderr)
        assert armed
        armed.clear()
        _report(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert armed == []
        print("a line of another thread", file=sys.stderr)
        assert armed
    finally:
        moments.end()
    assert printed.getvalue().splitlines() == [
        "a line of the tool",
        "KeyboardInterrupt",
        "a line of another thread",
    ]
