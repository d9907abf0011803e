# SPDX-License-Identifier: Apache-2.0
"""Events as lines for people."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.actions.event_records import Text
from batchprobe.actions.events import Events
from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.functions.targets import Target
from batchprobe.output.event_text import EventTextSink, event_line
from batchprobe.probe import Event, Probe

PROBE = Probe(Target("vfs_read", ProbeSpec("vfs_read", Source("a list", 1), Kind.GLOB, "x"), None))
NOON = 1_800_014_400


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of the test."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def line(**fields: Any) -> str:
    task = {"time": NOON + 0.25, "cpu": 3, "pid": 99, "tid": 1234, "comm": "cat"}
    return event_line(Event(PROBE, {**task, **fields}))


def call(**fields: Any) -> str:
    """The part of the line behind the task."""
    return line(**fields)[line().index("vfs_read") :].rstrip("\n")


def test_a_line() -> None:
    assert line(args={"count": 4096}, result=-28, error="ENOSPC", duration_ns=12_300) == (
        "12:00:00.250000   3    1234 cat             vfs_read(count=4096) = -ENOSPC <12.3 us>\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (517, "517"),
        (-1, "-1"),
        (0, "0"),
        (True, "true"),
        (False, "false"),
        (None, "?"),
        ("0x0", "NULL"),
        ("0xffff888000000000", "0xffff888000000000"),
        ("UMOUNT_SYNC|0x8", "UMOUNT_SYNC|0x8"),
        (Text("passwd"), '"passwd"'),
        (Text(""), '""'),
        (Text("0x0"), '"0x0"'),
        (Text('a"b\\c'), '"a\\"b\\\\c"'),
        (Text("a\n\t\r\x1b[2J\x7f"), '"a\\n\\t\\r\\x1b[2J\\x7f"'),
        (Text("\x9b2J"), '"\\x9b2J"'),
        (Text("für"), '"für"'),
        # A char is no text, and can be anything.
        ("a", "a"),
        ("\x1b", "\\x1b"),
        ("\n", "\\n"),
        ("\x9b", "\\x9b"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert call(args={"a": value}) == f"vfs_read(a={text})"
    assert call(result=value) == f"vfs_read() = {text}"


def test_arguments_are_in_order() -> None:
    arguments = {"file": "0xffff0", "buf": None, "count": 1}
    assert call(args=arguments) == "vfs_read(file=0xffff0, buf=?, count=1)"
    assert call() == call(args={}) == "vfs_read()"
    assert call(result="0x0", duration_ns=0) == "vfs_read() = NULL <0 ns>"


@given(st.text())
def test_no_event_makes_two_lines_or_controls_the_terminal(text: str) -> None:
    fields = {"comm": text, "args": {"a": Text(text), "b": text[:1]}, "result": Text(text)}
    shown = line(**fields)
    assert shown.endswith("\n")
    assert not {each for each in shown[:-1] if ord(each) < 32 or 127 <= ord(each) < 160}


@given(st.integers(0, 999_999), st.integers(1_700_000_000, 4_000_000_000))
def test_microseconds(microsecond: int, second: int) -> None:
    at = round((second * 10**9 + microsecond * 1000) / 1e9, 6)
    assert line(time=at)[:16] == (
        time.strftime("%H:%M:%S", time.gmtime(second)) + f".{microsecond:06d} "
    )


def test_the_title_comes_once_and_values_are_no_table() -> None:
    out = io.StringIO()
    sink = EventTextSink(out, Events())
    for _ in range(2):
        sink.event(Event(PROBE, {"time": NOON, "cpu": 0, "pid": 1, "tid": 1, "comm": "init"}))
    sink.events_over()
    sink.final({})
    title, *lines = out.getvalue().splitlines()
    assert title.split() == ["TIME", "CPU", "PID", "COMM", "CALL"]
    assert lines == ["12:00:00.000000   0       1 init            vfs_read()"] * 2
    # The columns are below their titles.
    assert lines[0].index("init") == title.index("COMM")
    assert lines[0].index("vfs_read") == title.index("CALL")
