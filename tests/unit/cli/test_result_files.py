# SPDX-License-Identifier: Apache-2.0
"""What results are written to: a file of another form than text has nothing else in it."""

from __future__ import annotations

import io
import sys

import pytest

from batchprobe.actions.events import EventCounts, Events
from batchprobe.actions.stacks import CallStack, Stacks, StackSum, StackSums
from batchprobe.cli.args import StacksOptions
from batchprobe.cli.results_file import results_file
from batchprobe.cli.stacks import StackSink
from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe

PROBE = Probe(Target("vfs_read", ProbeSpec("vfs_read", Source("a list", 1), Kind.NAME), None))


def test_characters_that_the_locale_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    with results_file(None) as out:
        out.write("caf\xe9 \u65e5\n")
        out.flush()
    assert raw.getvalue() == b"caf\xe9 \\u65e5\n"


@pytest.mark.parametrize("file", ["a.svg", "a.folded", "a.json", "a.txt", None])
def test_intervals_of_stacks(file: str | None) -> None:
    out, options = io.StringIO(), StacksOptions(output=file)
    sink = StackSink(out, Stacks(), options, by_time=False, user=None)
    values = {PROBE: StackSums({CallStack((1,)): StackSum(3)})}
    sink.interval(1.0, values, values)
    is_text = file in ("a.txt", None)
    assert ("vfs_read" in out.getvalue()) == is_text
    assert bool(out.getvalue()) == is_text


def test_intervals_of_a_timeline() -> None:
    pytest.importorskip("perfetto")
    from batchprobe.cli.timeline import TimelineSink  # noqa: PLC0415  (an extra)

    raw = io.BytesIO()
    out = io.TextIOWrapper(raw)
    sink = TimelineSink(out, Events())
    values = {PROBE: EventCounts(3)}
    sink.interval(1.0, values, values)
    out.flush()
    assert raw.getvalue() == b""
