# SPDX-License-Identifier: Apache-2.0
"""The choices of an option are those that the library takes."""

from __future__ import annotations

from typing import get_args

from batchprobe.attach.abis import ABIS
from batchprobe.attach.base import Placement
from batchprobe.cli.args import options
from batchprobe.commit.barrier import BarrierMode

CHOICES = {name: get_args(type_) for name, type_, _ in options()}


def test_options_offer_the_choices_of_the_library() -> None:
    assert CHOICES["abi"] == ("auto", *ABIS)
    assert CHOICES["placement"] == tuple(placement.value for placement in Placement)
    assert CHOICES["barrier"] == tuple(mode.value for mode in BarrierMode)
