# SPDX-License-Identifier: Apache-2.0
"""What became of hits, and which functions have events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from btf import LONG, Btf
from c_layout import EVENTS, VALUES
from fake_maps import FakeMaps, probe, target

from batchprobe.actions import events
from batchprobe.actions.condition import ConditionError
from batchprobe.actions.events import CallEvents, EventCounts, Events
from batchprobe.actions.plan import NOTHING, PLAN_SIZE
from batchprobe.functions.signatures import Signatures
from batchprobe.kernel.btf_types import Kind
from batchprobe.programs.probe_maps import Hits

TALLY = EVENTS.names("tally")


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    btf = Btf()
    btf.function("takes_size", ("size", LONG), result=LONG)
    btf.add(Kind.FUNCTION, "sizes_too", btf.types - 1)
    btf.function("takes_count", ("count", LONG))
    monkeypatch.setattr(
        events, "signatures_of", lambda _symbols: Signatures(None, lambda _module: btf.raw)
    )


def maps_of(**tallies: int) -> FakeMaps:
    """Slot 2 has these."""
    maps = FakeMaps({"plans": 4 * PLAN_SIZE // 8, "tallies": 4 * len(TALLY)})
    for name, number in tallies.items():
        maps.arrays["tallies"].cells[2 * len(TALLY) + TALLY.index(name)] = number
    return maps


def counts(action: Events, hits: int, **tallies: int) -> Mapping[str, int]:
    """Those of slot 2 that are not 0."""
    reader = action.reader(cast(Any, maps_of(**tallies)))
    found = reader.snapshot(Hits.of({2: hits, 1: 0}))
    assert not found[1]
    return {
        name: getattr(found[2], name) for name in EventCounts.names() if getattr(found[2], name)
    }


def test_tallies() -> None:
    numbers = {"emitted": 1, "lost": 2, "unwanted": 4, "limited": 8, "missed": 16, "dropped": 32}
    expected = {"emitted": 1, "lost": 34, "unwanted": 4, "limited": 8, "missed": 16}
    assert counts(Events(), 70, **numbers) == expected
    assert counts(CallEvents(), 70, **numbers) == {**expected, "unfinished": 7}
    # The hits were counted before the tallies were read.
    assert counts(CallEvents(), 60, **numbers) == expected


def test_what_was_lost() -> None:
    reader = Events().reader(cast(Any, maps_of(lost=3, dropped=4, unwanted=8)))
    assert reader.lost() == 7


def test_differences() -> None:
    earlier = EventCounts(emitted=3, lost=1, unfinished=5)
    later = EventCounts(emitted=10, lost=1, unwanted=2, unfinished=4)
    since = later - earlier
    assert (since.emitted, since.lost, since.unwanted) == (7, 0, 2)
    # Calls that are open now, not since.
    assert since.unfinished == 4
    assert not EventCounts(emitted=3) - EventCounts(emitted=3)
    assert bool(EventCounts(unwanted=1))


def test_json() -> None:
    assert Events().to_json(EventCounts()) == {"emitted": 0}
    assert Events().to_json(EventCounts(lost=2)) == {"emitted": 0, "lost": 2}


def test_unfinished_calls() -> None:
    value = EventCounts(unfinished=3, missed=2)
    assert CallEvents().unfinished(value) == 5
    assert Events().unfinished(value) is None


def test_functions_that_lack_what_is_asked_for() -> None:
    action = Events(where="size > 4", arguments=["size"])
    wanted = [target("takes_size"), target("takes_count"), target("in_assembly")]
    refused = {one.label: why for one, why in action.prepare(wanted, cast(Any, None)).items()}
    assert refused["takes_count"] == "no argument named size: it takes count"
    assert refused["in_assembly"].startswith("BTF leaves it out")
    assert "takes_size" not in refused
    # What is left out is not shown in any way.
    assert action.prepare([target("takes_size", offset=4)], cast(Any, None)) != {}
    assert action.untyped == {}
    assert action.notes() == ()


def test_functions_without_types_have_registers() -> None:
    action = Events()
    assert action.notes() == ()
    wanted = [target("in_assembly"), target("also.isra.0"), target("takes_size", offset=4)]
    assert action.prepare(wanted, cast(Any, None)) == {}
    assert action.notes() == [
        f"1 function shown without types ({label}): {reason}"
        for label, reason in action.untyped.items()
    ]
    assert action.untyped["takes_size"] == "its arguments are known at the entry only"


def test_plans_are_filled_in_and_events_decoded() -> None:
    action = Events()
    probes = [probe("takes_size", 3), probe("takes_count", 1)]
    action.prepare([each.target for each in probes], cast(Any, None))
    maps = maps_of()
    reader = action.reader(cast(Any, maps))
    # The last one is only tried, and has no plan.
    assert action.fill(cast(Any, maps), [*probes, probe("tried", 2)], 0) == ()
    plans = maps.arrays["plans"].cells.cast("B")
    assert plans[2 * PLAN_SIZE : 3 * PLAN_SIZE] == NOTHING
    assert plans[3 * PLAN_SIZE :] == action._plans[probes[0].target].packed
    assert plans[PLAN_SIZE : 2 * PLAN_SIZE] == action._plans[probes[1].target].packed
    maps.rings["ring"].records += [of_slot(3, 517), of_slot(1, 8), of_slot(3, 4)]
    found = [(slot, fields["args"]) for slot, fields in cast(Any, reader.events())]
    assert found == [(3, {"size": 517}), (1, {"count": 8}), (3, {"size": 4})]


def of_slot(slot: int, value: int) -> bytes:
    """A record of one value."""
    at = VALUES.offsets("event")
    raw = memoryview(bytearray(at["value"] + 8))
    raw[at["slot"] : at["slot"] + 4].cast("I")[0] = slot
    raw[at["value"] :].cast("Q")[0] = value
    return bytes(raw)


def test_the_last_events_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_AT_ONCE", 2)
    action = Events()
    made = probe("takes_size", 1)
    action.prepare([made.target], cast(Any, None))
    maps = maps_of()
    reader = action.reader(cast(Any, maps))
    action.fill(cast(Any, maps), [made], 0)
    maps.rings["ring"].records += [of_slot(1, number) for number in range(7)]

    def sizes(raw: Any) -> list[int]:
        return [fields["args"]["size"] for _, fields in raw]

    assert sizes(reader.events()) == [0, 1]
    assert sizes(reader.last_events()) == [2, 3, 4, 5, 6]
    assert sizes(reader.events()) == []


def test_functions_of_one_prototype_share_a_plan() -> None:
    action = Events()
    one, other, third = target("takes_size"), target("sizes_too"), target("takes_count")
    assert action.prepare([one, other, third], cast(Any, None)) == {}
    assert action._plans[one] is action._plans[other]
    assert action._plans[one] is not action._plans[third]


def test_a_bad_condition() -> None:
    with pytest.raises(ConditionError, match="missing at the end"):
        Events(where="size >")
