# SPDX-License-Identifier: Apache-2.0
"""The choices of an option are those that the library takes."""

from __future__ import annotations

from batchprobe.actions.latency import SORTS
from batchprobe.attach.abis import ABIS
from batchprobe.attach.base import Placement
from batchprobe.cli.args import OPTIONS, LatencyOptions, options_of
from batchprobe.commit.barrier import BarrierMode

CHOICES = {name: option.kind for name, option in OPTIONS.items()}


def test_options_offer_the_choices_of_the_library() -> None:
    assert CHOICES["abi"] == ("auto", *ABIS)
    assert CHOICES["placement"] == tuple(placement.value for placement in Placement)
    assert CHOICES["barrier"] == tuple(mode.value for mode in BarrierMode)


def test_latency_sorts_by_what_the_action_sorts_by() -> None:
    kind = options_of(LatencyOptions)["sort"].kind
    assert isinstance(kind, tuple)
    assert sorted(kind) == sorted(SORTS)
