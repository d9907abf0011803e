# SPDX-License-Identifier: Apache-2.0
"""Folded stacks, the input of flame graph tools: `root;child;leaf WEIGHT`."""

from __future__ import annotations

from batchprobe.output.stack_profile import Frame, Profile, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["write"]

_KERNEL = "_[k]"
"""The suffix by which flame graph tools know a frame of the kernel."""


def write(profile: Profile, out: TextIO) -> None:
    """One line a stack, sorted."""
    names: dict[Frame, str] = {}
    for stack in profile.stacks:
        for frame in stack:
            if frame not in names:
                names[frame] = _escaped(frame)
    lines = (
        f"{';'.join([names[frame] for frame in stack])} {weight}\n"
        for stack, weight in profile.stacks.items()
    )
    out.writelines(sorted(lines))
    out.flush()


def _escaped(frame: Frame) -> str:
    # The format has no escape of its own. A backslash is doubled, so that two names stay two.
    name = printable(frame.name.replace("\\", "\\\\")).replace(";", r"\x3b")
    return name + _KERNEL if frame.is_kernel else name
