# SPDX-License-Identifier: Apache-2.0
"""The choices of an option are those that the library takes."""

from __future__ import annotations

from batchprobe.attach.abis import ABIS
from batchprobe.attach.base import Placement
from batchprobe.cli.args import OPTIONS
from batchprobe.commit.barrier import BarrierMode

CHOICES = {name: option.kind for name, option in OPTIONS.items()}


def test_options_offer_the_choices_of_the_library() -> None:
    assert CHOICES["abi"] == ("auto", *ABIS)
    assert CHOICES["placement"] == tuple(placement.value for placement in Placement)
    assert CHOICES["barrier"] == tuple(mode.value for mode in BarrierMode)
