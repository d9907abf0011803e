# SPDX-License-Identifier: Apache-2.0
"""What results are written to: a file of another form than text has nothing else in it."""

from __future__ import annotations

import io
import sys

import pytest

from batchprobe.actions.events import EventCounts, Events
from batchprobe.actions.stacks import CallStack, Stacks, StackSum, StackSums
from batchprobe.cli.args import StacksOptions
from batchprobe.cli.results_file import refuse_json, results_file
from batchprobe.cli.stacks import StackSink
from batchprobe.errors import UsageError
from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.functions.targets import Target
from batchprobe.probe import Event, Probe

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


def test_json_in_a_file_of_another_form() -> None:
    with pytest.raises(UsageError, match=r"--json -o a\.svg: which form"):
        refuse_json("a.svg", [".svg", ".folded"], as_json=True)
    refuse_json("a.svg", [".svg"], as_json=False)
    refuse_json("a.json", [".svg"], as_json=True)
    refuse_json(None, [".svg"], as_json=True)


def test_an_argument_that_is_called_result() -> None:
    pytest.importorskip("perfetto")
    from batchprobe.cli.timeline import TimelineSink  # noqa: PLC0415  (an extra)

    raw = io.BytesIO()
    sink = TimelineSink(io.TextIOWrapper(raw), Events())
    head = {"time_ns": 5, "tid": 1, "pid": 1, "comm": "cat", "cpu": 0}
    sink.event(Event(PROBE, {**head, "args": {"result": 111, "size": 7}, "result": 222}))
    sink.final({})
    found = raw.getvalue()
    assert b"arg.result" in found
    assert b"arg.size" not in found
