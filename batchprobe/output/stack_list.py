# SPDX-License-Identifier: Apache-2.0
"""The heaviest stacks as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from batchprobe._util.counted import counted
from batchprobe.output.stack_profile import Profile, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from batchprobe.output.stack_profile import Stack

__all__ = ["write"]

_INDENT = "    "


def write(profile: Profile, out: TextIO, *, top: int | None = None) -> None:
    """The `top` heaviest stacks, or all, then a line with the total.

    The innermost frame is first, as in the kernel's own traces; `--` stands between the frames of
    the kernel and those of user space.
    """
    ranked = profile.by_weight()
    shown = ranked[:top]
    for stack, weight in shown:
        out.write(f"{profile.shown(weight)}, {profile.share(weight)}\n")
        out.writelines(f"{_INDENT}{line}\n" for line in _lines(stack))
        out.write("\n")
    total = f"{profile.shown(profile.total)} in {counted(len(ranked), 'stack')}"
    if rest := ranked[len(shown) :]:
        weight = sum(weight for _, weight in rest)
        total += f"; not shown: {counted(len(rest), 'stack')} with {profile.share(weight)}"
    if profile.lost:
        total += f"; lost: {counted(profile.lost, 'stack')}"
    out.write(f"{total}\n")
    out.flush()


def _lines(stack: Stack) -> Iterator[str]:
    inner = stack[-1]
    for frame in reversed(stack):
        if frame.is_kernel != inner.is_kernel:
            yield "--"
        yield printable(frame.name)
        inner = frame
