# SPDX-License-Identifier: Apache-2.0
"""Every record of --json is as schema.json and docs/json.md describe it."""

from __future__ import annotations

import copy
import io
import json
import re
import struct
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from batchprobe.actions import Action, Count
from batchprobe.actions.errors import Errors, Failure, Failures
from batchprobe.actions.event_records import Decoder
from batchprobe.actions.events import CallEvents, EventCounts
from batchprobe.actions.plan import Plan, Shown
from batchprobe.actions.stacks import CallStack, CallTimeStacks, StackSum, StackSums
from batchprobe.cli.doctor import show_checks
from batchprobe.commit.queue import CommitReport, RemovalFailure
from batchprobe.funclist.spec import Kind, ProbeSpec, Source
from batchprobe.functions.table import Function
from batchprobe.functions.targets import Reason, Resolution, Skipped, Target
from batchprobe.functions.value_types import ValueKind, ValueType
from batchprobe.output.base import Summary
from batchprobe.output.json_lines import SCHEMA, JsonSink
from batchprobe.probe import Event, Probe

TEXT = files("batchprobe.output").joinpath("schema.json").read_text()
DOCUMENT = Path(__file__).resolve().parents[3] / "docs/json.md"
ENTRY = ProbeSpec("vfs_*", Source("a list", 1), Kind.GLOB, "vfs_*")
SKIPPED = [
    Skipped("nosuch", Source("a list", 3), Reason.UNKNOWN, "there is such"),
    Skipped("tcp_*", Source("a list", 4), Reason.REFUSED, "by the kernel", "tcp_push"),
]
HITS = {Probe(Target(label, ENTRY, None)): hits for label, hits in (("vfs_read", 7), ("rare", 0))}


def described_only() -> dict[str, Any]:
    """The schema, but keys that it does not describe are errors."""
    schema = json.loads(TEXT)
    schema["unevaluatedProperties"] = False
    for name in ("commit", "event_counts", "call_times"):
        schema["$defs"][name]["unevaluatedProperties"] = False
    schema["$defs"]["stacks"]["items"]["unevaluatedProperties"] = False
    schema["$defs"]["failures"]["additionalProperties"]["unevaluatedProperties"] = False
    return dict(schema)


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema.Draft202012Validator(schema)


DESCRIBED = validator(described_only())
AS_SHIPPED = validator(json.loads(TEXT))


def keys(schema: object) -> Iterator[str]:
    """The names of all properties."""
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
        for part in schema.values():
            yield from keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keys(part)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def of_a_run(**changes: Any) -> list[dict[str, Any]]:
    out = io.StringIO()
    sink = JsonSink(out, Count())
    sink.interval(0.12345, HITS, HITS)
    sink.final(HITS)
    failed = (RemovalFailure("an event", 16),)
    end = Summary(
        abi="event+perf",
        placement="after",
        skipped=SKIPPED,
        omitted={Reason.NOTRACE: 2},
        hits=HITS,
        values=HITS,
        attach_seconds=1.25,
        commit=CommitReport(probes=2, clean=1, dirty=1, barriers=1, failed=failed),
    )
    vars(end).update(changes)
    sink.end(end)
    return lines(out)


def of_a_list() -> list[dict[str, Any]]:
    out = io.StringIO()
    here = Target("vfs_read+0x4", ENTRY, Function("vfs_read", "", 0xFFFFFFFF81234560, 32), 4)
    targets = [here, Target("not_loaded:f", ENTRY, None)]
    JsonSink(out, Count()).resolution(Resolution(targets, SKIPPED, {Reason.NOTRACE: 2}))
    return lines(out)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(TEXT))
    assert json.loads(TEXT)["properties"]["schema"]["const"] == SCHEMA


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"missed": 3, "lost": 4},
        {"lost": None},
        {"pending": [Probe(Target("not_loaded:f", ENTRY, None))]},
    ],
)
def test_records_of_attach(changes: dict[str, Any]) -> None:
    records = of_a_run(**changes)
    assert [record["type"] for record in records] == ["counts", "final", "summary"]
    for record in records:
        DESCRIBED.validate(record)


def test_the_summary_of_nothing() -> None:
    out = io.StringIO()
    JsonSink(out, Count()).end(Summary())
    (record,) = lines(out)
    DESCRIBED.validate(record)


def test_an_event() -> None:
    out = io.StringIO()
    probe = Probe(Target("vfs_read", ENTRY, None))
    JsonSink(out, Count()).event(Event(probe, {"pid": 7, "command": "sh"}))
    (record,) = lines(out)
    AS_SHIPPED.validate(record)


def call_of_seven_values() -> dict[str, object]:
    """As the kernel's record of a call is decoded (struct event in bpf/values.h)."""
    types = (
        ValueType("int", ValueKind.INTEGER, 4, is_signed=True),
        ValueType("bool", ValueKind.BOOLEAN, 1),
        ValueType("char", ValueKind.CHARACTER, 1),
        ValueType("enum e", ValueKind.ENUM, 4, enumerators={3: "THREE"}),
        ValueType("struct file *", ValueKind.POINTER, 8),
        ValueType("long", ValueKind.INTEGER, 8, is_signed=True),
    )
    shown = [Shown(f"a{number}", type_) for number, type_ in enumerate(types)]
    plan = Plan(b"", (*shown, Shown("arg6", None)), types[0], has_result=True)
    values = (-100, 1, ord("x"), 3, 0xFFFF888006DEC800, 0, 7, *[0] * 9)
    head = struct.pack(
        "=QQQIIIHH4sHBx16s", *(5, 7, (1 << 64) - 2, 1, 8, 7, 1, 1 << 5), bytes(4), 0, 0, b"cat"
    )
    record = head + struct.pack("=qQQQQqQ9Q", *values)
    return dict(Decoder(plan, is_call=True).fields(record, 0, 10**18))


def test_an_event_of_trace() -> None:
    out = io.StringIO()
    fields = call_of_seven_values()
    JsonSink(out, Count()).event(Event(Probe(Target("vfs_read", ENTRY, None)), fields))
    (record,) = lines(out)
    assert record["error"] == "ENOENT"
    assert list(record["args"].values()) == [
        *(-100, True, "x", "THREE", "0xffff888006dec800", None, "0x7"),
    ]
    DESCRIBED.validate(record)
    # Only these are absent of a hit that is no call, of a function without arguments.
    for key in record.keys() - {"args", "result", "error", "duration_ns"}:
        assert not AS_SHIPPED.is_valid({k: v for k, v in record.items() if k != key}) or (
            key == "time_ns"
        ), key


@pytest.mark.parametrize(
    ("action", "value"),
    [
        (CallEvents(), EventCounts(3, lost=1, unwanted=2, limited=4, missed=5, unfinished=6)),
        (CallEvents(), EventCounts()),
        (Errors(), Failures({"EIO": Failure(error="EIO", count=2, pid=7, tid=8, comm="dd")})),
        (Errors(), Failures({})),
        (
            CallTimeStacks(only_errors=True),
            StackSums(
                {
                    CallStack((0xFFFFFFFF81234560,), (0x7F00,), 7, "dd", "EIO"): StackSum(2, 9),
                    CallStack((0xFFFFFFFF81234560, 0xFFFFFFFF81000000)): StackSum(1),
                }
            ),
        ),
        (CallTimeStacks(), StackSums({})),
    ],
)
def test_values_of_trace_and_stacks(action: Action, value: object) -> None:
    values = {Probe(Target("vfs_read", ENTRY, None)): value}
    out = io.StringIO()
    sink = JsonSink(out, action)
    sink.interval(1.0, values, values)
    sink.final(values)
    for record in lines(out):
        DESCRIBED.validate(record)
        assert not AS_SHIPPED.is_valid({**record, "functions": {"vfs_read": {"emitted": -1}}})
        assert not AS_SHIPPED.is_valid({**record, "functions": {"vfs_read": [{"calls": 1}]}})
        assert not AS_SHIPPED.is_valid({**record, "functions": {"vfs_read": {"EIO": 1}}})


def test_records_of_functions() -> None:
    records = of_a_list()
    assert [record["type"] for record in records] == ["function"] * 2 + ["skipped"] * 2 + [
        "summary"
    ]
    for record in records:
        DESCRIBED.validate(record)


def test_records_of_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    show_checks(as_json=True)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["type"] for record in records} == {"check"}
    for record in records:
        DESCRIBED.validate(record)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ("schema", 2),
        ("type", "end"),
        ("hits", {"vfs_read": -1}),
        ("hits", {"vfs_read": "7"}),
        ("missed", 0.5),
        ("abi", "kprobe"),
        ("placement", "event after"),
        ("skipped", [{"entry": "nosuch"}]),
        ("left_out", {"not traceable": 0}),
        ("attach_seconds", "1.25"),
        ("commit", {}),
    ],
)
def test_what_the_schema_refuses(at: str, value: object) -> None:
    record = copy.deepcopy(of_a_run()[-1])
    assert AS_SHIPPED.is_valid(record)
    record[at] = value
    assert not AS_SHIPPED.is_valid(record)


def test_every_key_is_required_or_said_to_be_absent() -> None:
    end = of_a_run()[-1]
    for key in end:
        assert not AS_SHIPPED.is_valid({k: v for k, v in end.items() if k != key}), key


def test_the_page_has_every_key_and_every_reason() -> None:
    named = set(re.findall(r"`([^`\n]+)`", DOCUMENT.read_text().replace("```", "")))
    assert set(keys(json.loads(TEXT))) <= named
    assert {reason.value for reason in Reason} <= named
