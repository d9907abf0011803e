# SPDX-License-Identifier: Apache-2.0
"""`batchprobe latency`: a run of `attach` that measures calls."""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe.actions.latency import Latency
from batchprobe.cli.args import LatencyOptions
from batchprobe.cli.attach import attach_lists
from batchprobe.cli.signals import Stop

__all__ = ["measure_lists"]


def measure_lists(lists: Sequence[str], options: LatencyOptions, stop: Stop) -> int:
    """As `attach_lists`, with the times of calls instead of their number."""
    action = Latency(options.sort, draws_histograms=options.histogram)
    return attach_lists(lists, options, stop, action)
