# SPDX-License-Identifier: Apache-2.0
"""`batchprobe trace`: a run of `attach` that shows each hit or call, or counts errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchprobe.actions.base import Action
from batchprobe.actions.condition import ConditionError
from batchprobe.actions.errors import Errors
from batchprobe.actions.events import CallEvents, Events
from batchprobe.cli.args import TraceOptions
from batchprobe.cli.attach import attach_lists
from batchprobe.cli.results_file import refuse_json
from batchprobe.cli.signals import Stop
from batchprobe.errors import UsageError
from batchprobe.output.event_text import EventTextSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from batchprobe.output.base import Sink

__all__ = ["trace_lists"]

_OF_EVENTS = ("returns", "where", "arg", "limit", "rate")
_TIMELINE = ".perfetto-trace"


def trace_lists(lists: Sequence[str], options: TraceOptions, stop: Stop) -> int:
    """As `attach_lists`, with events instead of the number of hits."""
    if options.errors:
        given = [name for name in _OF_EVENTS if getattr(options, name) not in (None, [], False)]
        if given:
            flags = ", ".join(f"--{name.removesuffix('s')}" for name in given)
            raise UsageError(f"--errors counts, and shows no events: leave out {flags}")
        action, make_sink = _errors(options)
        return attach_lists(lists, options, stop, action, make_sink)
    if options.stacks:
        raise UsageError("--stacks: of what? Say --errors, or use `batchprobe stacks`")
    if options.top:
        raise UsageError("--top is for counts: say --errors, or --limit N for the first N events")
    events = _events(options)
    refuse_json(options.output, [_TIMELINE], as_json=options.as_json)
    if (options.output or "").endswith(_TIMELINE):
        from batchprobe.cli.timeline import TimelineSink  # noqa: PLC0415  (few write one)
        from batchprobe.output.perfetto_trace import require_perfetto  # noqa: PLC0415

        # Not when the probes count already.
        require_perfetto()
        return attach_lists(lists, options, stop, events, lambda out: TimelineSink(out, events))
    return attach_lists(lists, options, stop, events, lambda out: EventTextSink(out, events))


def _errors(options: TraceOptions) -> tuple[Action, Callable[[TextIO], Sink] | None]:
    if not options.stacks:
        return Errors(), None
    refuse_json(options.output, [".svg", ".folded"], as_json=options.as_json)
    from batchprobe.actions.stacks import CallTimeStacks  # noqa: PLC0415  (few ask)
    from batchprobe.cli.stacks import StackSink  # noqa: PLC0415

    action = CallTimeStacks(only_errors=True)
    return action, lambda out: StackSink(out, action, options, by_time=False, user=None)


def _events(options: TraceOptions) -> Events:
    asked: dict[str, Any] = {
        "where": options.where,
        "arguments": options.arg,
        "limit": options.limit,
        "rate": options.rate,
    }
    try:
        if options.returns:
            return CallEvents(**asked)
        events = Events(**asked)
    except ConditionError as error:
        raise UsageError(f"--where: {error}") from error
    condition = events.condition
    if condition is not None and (condition.uses_result or condition.uses_duration):
        # They are known at the return, and the arguments at the entry.
        return CallEvents(**asked)
    return events
