# SPDX-License-Identifier: Apache-2.0
"""Hits in a module that came back at another address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_maps import target

from batchprobe import arch
from batchprobe.attach.calls import CallsAttachment
from batchprobe.attach.late_modules import claim_hits
from batchprobe.functions.table import Function
from batchprobe.probe import Probe

BACK_AT = 0xFFFF_FFFF_C123_4000


class Maps:
    """Where one probe after the patch site was hit once, at the function's new address."""

    has_unclaimed = True

    def __init__(self, ip: int) -> None:
        self.slots: dict[int, int] = {}
        self.unclaimed = {ip: 1}

    def unclaimed_hits(self) -> dict[int, int]:
        """As ProbeMaps.unclaimed_hits()."""
        return {ip: hits for ip, hits in self.unclaimed.items() if ip not in self.slots}

    def map_ips(self, *pairs: tuple[int, int]) -> None:
        """As ProbeMaps.map_ips()."""
        self.slots.update(pairs)

    def claim(self, ip: int, slot: int) -> None:
        """As ProbeMaps.claim()."""
        self.map_ips((ip, slot))


def test_both_ends_of_a_call_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = arch.adapter("x86_64")
    monkeypatch.setattr(arch, "current", lambda: adapter)
    # After endbr64 and the call of __fentry__.
    [ip] = adapter.hit_ips(BACK_AT, 9)
    maps = Maps(ip)

    def make(probes: list[Probe], _is_return: bool, _beside: object) -> Any:
        for slot, probe in enumerate(probes, 1):
            probe.slot, probe.offset = slot, 0 if probe.target.is_return else 9
        action = SimpleNamespace(has_events=False)
        live = dict.fromkeys(probes)
        return SimpleNamespace(maps=maps, live=live, reader=None, refused=[], _action=action)

    probe = Probe(target("ext4_sync_file", module="ext4"))
    made: Any = make
    attachment = CallsAttachment([probe], made)
    function = Function("ext4_sync_file", "ext4", BACK_AT, 64)
    table = SimpleNamespace(function_at=lambda _ip: (function, 0))
    symbols: Any = SimpleNamespace(table=lambda: table)
    claim_hits([attachment], [probe], symbols)
    assert maps.slots[ip] == probe.slot
    for back in adapter.return_probe_ips(BACK_AT, 0):
        assert maps.slots[back] == probe.slot
