# SPDX-License-Identifier: Apache-2.0
"""`batchprobe functions`: what a list comes to on this kernel."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from batchprobe.actions import Count
from batchprobe.errors import ExitStatus
from batchprobe.funclist.read import read_arguments
from batchprobe.functions.preview import preview
from batchprobe.output.base import Sink
from batchprobe.output.json_lines import JsonSink
from batchprobe.output.text import TextSink

__all__ = ["show_functions"]


def show_functions(arguments: Sequence[str], *, as_json: bool) -> int:
    """Print the functions of these entries and lists; returns the exit status."""
    found = preview(read_arguments(arguments))
    sink: Sink = JsonSink(sys.stdout, Count()) if as_json else TextSink(sys.stdout, Count())
    sink.resolution(found)
    return ExitStatus.OK if found.targets else ExitStatus.NOTHING_ATTACHED
