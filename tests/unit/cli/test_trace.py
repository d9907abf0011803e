# SPDX-License-Identifier: Apache-2.0
"""What `trace` and `stacks` make of their options, before they ask the kernel anything."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from batchprobe.actions.base import Action
from batchprobe.actions.errors import Errors
from batchprobe.actions.events import CallEvents, Events
from batchprobe.actions.stacks import CallTimeStacks, Stacks
from batchprobe.cli import stacks as stacks_command
from batchprobe.cli import trace as trace_command
from batchprobe.cli.args import StacksOptions, TraceOptions
from batchprobe.cli.signals import Stop
from batchprobe.cli.stacks import StackSink, UserAddresses, stack_lists
from batchprobe.cli.trace import trace_lists
from batchprobe.errors import ExitStatus, UsageError
from batchprobe.output.event_text import EventTextSink

Runs = list[tuple[Action, Callable[[Any], Any] | None]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """The actions and sinks with which probes would be attached."""
    made: Runs = []

    def attach(
        _lists: Sequence[str], _options: object, _stop: Stop, action: Action, make_sink: Any
    ) -> int:
        made.append((action, make_sink))
        return 0

    monkeypatch.setattr(trace_command, "attach_lists", attach)
    monkeypatch.setattr(stacks_command, "attach_lists", attach)
    yield made
    assert all(isinstance(action, Action) for action, _ in made)


def trace(runs: Runs, **asked: Any) -> tuple[Any, Any]:
    """The action and the sink of a run."""
    assert trace_lists(["vfs_read"], TraceOptions(**asked), Stop()) == 0
    action, make_sink = runs[-1]
    return action, make_sink(io.StringIO()) if make_sink else None


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({}, Events),
        ({"where": "size > 4"}, Events),
        ({"where": "size > 4 && result < 0"}, CallEvents),
        ({"where": "duration > 1ms"}, CallEvents),
        ({"where": "arg.result > 0"}, Events),
        ({"returns": True}, CallEvents),
    ],
)
def test_calls_are_followed_where_it_takes_that(
    runs: Runs, asked: dict[str, Any], kind: type[Events]
) -> None:
    action, sink = trace(runs, **asked, limit=5)
    assert type(action) is kind
    assert action.limit == 5
    assert isinstance(sink, EventTextSink)
    assert (str(action.condition) if action.condition else None) == asked.get("where")


def test_errors_are_counted_or_have_stacks(runs: Runs) -> None:
    action, sink = trace(runs, errors=True)
    assert (type(action), sink) == (Errors, None)
    action, sink = trace(runs, errors=True, stacks=True)
    assert (type(action), type(sink)) == (CallTimeStacks, StackSink)
    assert action.constants_at_return() == {"ONLY_ERRORS": 1}


@pytest.mark.parametrize(
    ("asked", "kind"), [({}, Stacks), ({"by_time": True}, CallTimeStacks)], ids=["calls", "time"]
)
def test_stacks(runs: Runs, asked: dict[str, Any], kind: type[Action]) -> None:
    assert stack_lists(["vfs_read"], StacksOptions(**asked), Stop()) == 0
    ((action, make_sink),) = runs
    assert type(action) is kind
    assert make_sink is not None
    assert isinstance(make_sink(io.StringIO()), StackSink)


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({"where": "a > 1"}, "--where"),
        ({"returns": True}, "--return"),
        ({"arg": ["a.x"], "limit": 3, "rate": 4}, "--arg, --limit, --rate"),
    ],
)
def test_errors_have_no_events(runs: Runs, asked: dict[str, Any], flags: str) -> None:
    with pytest.raises(UsageError) as error:
        trace(runs, errors=True, **asked)
    assert str(error.value) == f"--errors counts, and shows no events: leave out {flags}"
    with pytest.raises(UsageError):
        trace(runs, errors=True, stacks=True, **asked)
    assert not runs


def test_stacks_of_what(runs: Runs) -> None:
    with pytest.raises(UsageError, match=r"^--stacks: of what\? Say --errors, or use"):
        trace(runs, stacks=True)
    assert not runs


@pytest.mark.parametrize("asked", [{}, {"returns": True}], ids=["hits", "calls"])
def test_a_bad_condition_is_shown_with_a_caret(runs: Runs, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        trace(runs, where="size > 4 &&\tresult = 5", **asked)
    assert str(error.value).splitlines() == [
        "--where: unknown operator '=': write ==",
        "  size > 4 && result = 5",
        "                     ^",
    ]
    assert not runs


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ("trace", "-w", "size >", "vfs_read"),
            [
                "batchprobe: error: --where: a path or a constant is missing at the end",
                "  size >",
                "        ^",
            ],
        ),
        (
            ("trace", "--errors", "--where", "size > 1", "vfs_read"),
            ["batchprobe: error: --errors counts, and shows no events: leave out --where"],
        ),
        (
            ("trace", "--top", "3", "vfs_read"),
            [
                "batchprobe: error: --top is for counts: say --errors, or --limit N for the first "
                "N events"
            ],
        ),
        (
            ("latency", "--sort", "x", "vfs_read"),
            [
                "batchprobe: error: invalid value for '--sort': 'x' is not one of 'total', 'self', "
                "'calls', 'avg', 'p50', 'p99', 'max' (see `batchprobe latency --help`)"
            ],
        ),
        (
            ("trace", "--stacks", "vfs_read"),
            [
                "batchprobe: error: --stacks: of what? Say --errors, or use `batchprobe stacks`",
            ],
        ),
    ],
)
def test_they_are_errors_of_usage(arguments: Sequence[str], lines: Sequence[str]) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "batchprobe", *arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr.splitlines()) == ("", lines)
    assert done.returncode == ExitStatus.USAGE == 2


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        (b"read+0x10 [libc.so.6]", "libc.so.6!read+0x10"),
        (b"f(int) [clone .cold]+0x4 [libx.so]", "libx.so!f(int) [clone .cold]+0x4"),
        (b"main+0x1", "main+0x1"),
        (b"[unknown]", "[unknown]"),
        (b"[unknown] [libx.so]", "libx.so![unknown]"),
    ],
)
def test_names_in_user_space(symbol: bytes, name: str) -> None:
    addresses = UserAddresses.__new__(UserAddresses)
    addresses._sym = lambda *_, **_options: symbol
    frame = addresses.frame(1, 0x1000)
    assert (frame.name, frame.is_kernel) == (name, False)


@pytest.mark.parametrize("option", ["--limit=0", "--rate=0", "--limit=x", "--rate=-1"])
def test_numbers_begin_at_one(option: str) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "batchprobe", "trace", option, "vfs_read"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitStatus.USAGE
    assert option.partition("=")[0] in done.stderr
