# SPDX-License-Identifier: Apache-2.0
"""One barrier before the results, and the waits of the reclaim, counted by the kernel."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from helpers.figures import report_figure
from helpers.machine import ABIS, PREFIX, RELEASE, TRACEFS
from helpers.waits import counted_waits, total

from batchprobe import Session

pytestmark = pytest.mark.stress

NUMBERS = (10, 100, 1000)
# Detached first, by a commit that leaves survivors.
FEW = 5


def names() -> list[str]:
    """Functions with unique names, most of them never called here."""
    text = (TRACEFS / "available_filter_functions").read_text()
    found = Counter(re.findall(r"^((?:tcp|udp|ip6?|fib|ext4|jbd2|nfs|xfrm|acpi)_\w+)$", text, re.M))
    return [name for name, times in found.items() if times == 1]


@pytest.mark.parametrize("abi", [abi for abi in ABIS if abi != "perf"])
def test_what_is_waited_for_does_not_depend_on_the_number(abi: str) -> None:
    functions = names()
    reclaims: list[Counter[str]] = []
    for number in NUMBERS:
        with Session(abi=abi) as session, counted_waits() as waits:
            probes = session.attach(itertools.islice(functions, (number + FEW) * 11 // 10))
            session.detach(probes[number + FEW :])
            session.commit()
            reclaim = Counter[str]()
            # First a few are detached, then the rest.
            for leaving in (probes[:FEW], probes[FEW : number + FEW]):
                before = waits()
                at_final: list[Counter[str]] = []
                session.detach(leaving)
                report = session.commit(partial(_note, at_final, waits))
                until_final = at_final[0] - before
                # The kernel saw what the report claims.
                assert until_final[f"{PREFIX}membarrier"] == 1
                assert total(until_final) == report.barriers == 1
                reclaim = waits() - at_final[0]
            assert (report.dirty, report.failed) == (number, ())
        shown = ", ".join(f"{n} {name}" for name, n in sorted(reclaim.items()))
        kernel = ".".join(map(str, RELEASE))
        report_figure(f"{kernel} {abi}, {number} probes: 1 wait before the results, then {shown}")
        if abi == "event":
            # Disarming waits once in each way. Then the kernel frees the probes one by one, each
            # after one expedited synchronize_rcu() or two.
            assert number < reclaim.pop("synchronize_rcu") <= 2 * number + 1
            reclaim.pop("synchronize_rcu_expedited")
        reclaims.append(reclaim)
    assert reclaims == reclaims[:1] * len(NUMBERS)


def _note(at: list[Counter[str]], waits: Callable[[], Counter[str]]) -> None:
    at.append(waits())
