# SPDX-License-Identifier: Apache-2.0
"""What is computed of the cells that the programs leave."""

from __future__ import annotations

from typing import Any

import pytest

from batchprobe.actions.latency import SORTS, CallTimes, Latency, shown_time

BUCKETS = 40


def times(buckets: dict[int, int] | None = None, **changed: Any) -> CallTimes:
    """Of calls by the exponent of their bucket."""
    cells = [0] * BUCKETS
    for at, calls in (buckets or {}).items():
        cells[at] = calls
    values: dict[str, Any] = {
        "calls": sum(cells),
        "total_ns": sum(calls << at for at, calls in enumerate(cells)),
        "self_ns": 0,
        "max_ns": max((1 << at for at, calls in enumerate(cells) if calls), default=0),
        "unfinished": 0,
        "missed": 0,
        "dropped": 0,
    }
    return CallTimes(buckets=cells, **{**values, **changed})


def test_the_histogram_is_by_the_lowest_time() -> None:
    assert times({0: 1, 10: 5}).histogram == {1: 1, 1024: 5}
    assert times().histogram == {}


def test_quantiles_are_spread_over_their_bucket() -> None:
    value = times({10: 100}, max_ns=2000)
    assert value.quantile(0) == 1024
    assert value.quantile(0.5) == 1536
    assert value.quantile(1) == 2000
    halves = times({4: 50, 20: 50}, max_ns=1 << 21)
    assert halves.quantile(0.5) == 32
    assert halves.quantile(0.75) == 1.5 * (1 << 20)
    assert times().quantile(0.99) == 0


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_quantile_is_a_share(q: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        times().quantile(q)


def test_no_quantile_is_longer_than_the_longest_call() -> None:
    assert times({10: 4}, max_ns=1100).quantile(0.99) == 1100


def test_the_last_bucket_has_no_end() -> None:
    """Calls of hours are not said to take minutes."""
    hour = 3600 * 10**9
    value = times({BUCKETS - 1: 2}, max_ns=4 * hour)
    low = 1 << BUCKETS - 1
    assert value.quantile(0.5) == (low + 4 * hour) / 2
    assert value.quantile(1) == 4 * hour
    assert times({BUCKETS - 1: 2}, max_ns=low + 7).quantile(0.5) == low + 7
    assert Latency(draws_histograms=True).details(times({38: 2, BUCKETS - 1: 1})) == [
        "   275 s to 550 s             2 ########################################",
        "   550 s or more              1 ####################",
    ]


def test_what_came_since() -> None:
    since = times({5: 7, 6: 2}, unfinished=3, max_ns=90) - times({5: 4}, missed=0)
    assert (since.calls, since.histogram) == (5, {32: 3, 64: 2})
    assert (since.unfinished, since.max_ns) == (3, 90)


def test_a_function_is_shown_if_anything_happened_in_it() -> None:
    assert not times()
    assert times(unfinished=1)
    assert times(missed=1)
    assert times(dropped=1)


def test_the_average_of_no_calls() -> None:
    assert times().average_ns == 0
    assert times({3: 4}, total_ns=100).average_ns == 25


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"), (999, "999 ns"), (999.6, "1.00 us"), (1_234, "1.23 us"), (12_340, "12.3 us"),
        (123_400, "123 us"), (999_600, "1.00 ms"), (5e6, "5.00 ms"), (1e9, "1 s"),
        (12.34e9, "12.3 s"), (1234e9, "1234 s"),
    ],
)  # fmt: skip
def test_times_have_three_digits_and_a_unit(nanoseconds: float, text: str) -> None:
    assert shown_time(nanoseconds) == text


def test_tables_are_sorted_as_asked() -> None:
    few, many = times({20: 1}), times({4: 1000})
    for name in SORTS:
        action = Latency(name)
        larger = many if name == "calls" else few
        assert max(few, many, key=action.rank) is larger, name
    with pytest.raises(ValueError, match="sort by total"):
        Latency("hits")


def test_distributions_are_drawn_only_if_asked_for() -> None:
    assert Latency().details(times({4: 2})) == ()
    assert Latency(draws_histograms=True).details(times({4: 2, 6: 1})) == [
        "   16 ns to 32 ns             2 ########################################",
        "   32 ns to 64 ns             0",
        "   64 ns to 128 ns            1 ####################",
    ]
    assert Latency(draws_histograms=True).details(times()) == []


def test_the_cost_is_told_by_abi() -> None:
    action = Latency()
    assert action.notes() == ()
    action.note_cost("multi", 1500)
    assert action.notes() == ["the probes add about 1.50 us (multi) to a call"]


def test_json_has_all_numbers() -> None:
    assert Latency().to_json(times({4: 2}, self_ns=7, unfinished=1)) == {
        "calls": 2,
        "total_ns": 32,
        "self_ns": 7,
        "max_ns": 16,
        "unfinished": 1,
        "missed": 0,
        "dropped": 0,
        "histogram": {"16": 2},
    }
