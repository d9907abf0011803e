# SPDX-License-Identifier: Apache-2.0
"""JSON for https://www.speedscope.app, whose file-format-schema.json describes it."""

from __future__ import annotations

import json

from batchprobe.output.stack_profile import Frame, Profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["write"]

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNITS = {"calls": "none", "ns": "nanoseconds"}
# Speedscope colours frames of one file alike, and shows the file beside the name.
_KERNEL_FILE = "[kernel]"


def write(profile: Profile, out: TextIO) -> None:
    """One sampled profile. Each stack is a sample with its weight; the samples have no time, and
    are in the order of their names.
    """
    numbers: dict[Frame, int] = {}
    samples = []
    weights = []
    for stack, weight in profile.by_name():
        samples.append([numbers.setdefault(frame, len(numbers)) for frame in stack])
        weights.append(weight)
    content = {
        "$schema": _SCHEMA,
        "exporter": "batchprobe",
        "name": profile.title,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(frame) for frame in numbers]},
        "profiles": [
            {
                "type": "sampled",
                "name": profile.title,
                "unit": _UNITS[profile.unit],
                "startValue": 0,
                "endValue": profile.total,
                "samples": samples,
                "weights": weights,
            }
        ],
    }
    # In one piece, because json.dump writes each number alone and is slow.
    out.write(json.dumps(content, separators=(",", ":")) + "\n")
    out.flush()


def _frame(frame: Frame) -> dict[str, str]:
    return {"name": frame.name, **({"file": _KERNEL_FILE} if frame.is_kernel else {})}
