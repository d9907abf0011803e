# SPDX-License-Identifier: Apache-2.0
"""A flame graph: one SVG file that needs nothing else. The same profile gives the same bytes.

Each frame is a nested <svg>, because that clips its text without a script; its x and width are
shares of the whole, so that the graph takes any width. flame_graph.js adds search and zoom, and
reads from each frame where it starts (data-s) and what it weighs (data-w).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape
from zlib import crc32

from batchprobe._util.counted import counted
from batchprobe.output.stack_profile import Frame, Profile, printable
from batchprobe.sys.files import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from batchprobe.output.stack_profile import Stack

__all__ = ["write"]

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_LEAST_PER_MILLE = 1
"""What is narrower is not drawn: at the nominal width it is a pixel, and there may be many."""
_SHADES = 8
"""Of each hue, in flame_graph.css."""

# In pixels. The nominal width is that of a graph without its script.
_WIDTH = 1200
_ROW = 17
_BOX = 16
_TOP = 54
_BOTTOM = 30
_PADDING = 3
_LETTER = 7.3
_FEWEST_LETTERS = 3


class _Box(NamedTuple):
    """One frame as it is drawn; `depth` counts from the root, which is 0 and has no frame."""

    depth: int
    start: int
    weight: int
    frame: Frame | None


def write(profile: Profile, out: TextIO) -> None:
    """The whole file. Raises OSError if the style or the script cannot be read."""
    boxes, too_narrow = _layout(profile)
    height = _TOP + _BOTTOM + _ROW * (1 + boxes[-1].depth)
    out.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flame" width="{_WIDTH}" '
        f'height="{height}" font-family="monospace" font-size="12">\n'
        f"<title>{_text(profile.title)}</title>\n"
        f"<style><![CDATA[\n{_asset('flame_graph.css')}]]></style>\n"
        '<rect class="paper" width="100%" height="100%"/>\n'
        f'<text class="title" x="{_PADDING}" y="22">{_text(profile.title)}</text>\n'
        f'<text class="status" x="{_PADDING}" y="43">{_text(_summary(profile))}</text>\n'
    )
    out.writelines(_drawn(box, profile, height) for box in boxes)
    out.write(_legend(height))
    if notes := "; ".join(_notes(profile, too_narrow)):
        out.write(f'<text class="notes" x="190" y="{height - 9}">{_text(notes)}</text>\n')
    out.write(f"<script><![CDATA[\n{_asset('flame_graph.js')}]]></script>\n</svg>\n")
    out.flush()


def _layout(profile: Profile) -> tuple[list[_Box], int]:
    """The frames that are drawn, each with the stacks that have it in common, and the number of
    those that are too narrow.
    """
    boxes = [_Box(0, 0, profile.total, None)]
    too_narrow = 0
    open_stack: Stack = ()
    starts: list[int] = []
    now = 0
    for stack, weight in [*profile.by_name(), ((), 0)]:
        common = _common(open_stack, stack)
        for depth in range(len(open_stack), common, -1):
            start = starts.pop()
            if (now - start) * 1000 < profile.total * _LEAST_PER_MILLE:
                too_narrow += 1
            else:
                boxes.append(_Box(depth, start, now - start, open_stack[depth - 1]))
        starts += [now] * (len(stack) - common)
        open_stack = stack
        now += weight
    # By place, which is what the script expects; no two frames are in one.
    return sorted(boxes, key=lambda box: (box.depth, box.start)), too_narrow


def _common(one: Stack, other: Stack) -> int:
    """How many of the outermost frames are the same."""
    for depth, (frame, beside) in enumerate(zip(one, other, strict=False)):
        if frame != beside:
            return depth
    return min(len(one), len(other))


def _drawn(box: _Box, profile: Profile, height: int) -> str:
    whole = profile.total or 1
    share = box.weight / whole if profile.total else 1.0
    name = printable(box.frame.name) if box.frame else "all"
    y = height - _BOTTOM - _ROW * (1 + box.depth)
    title = f"{name}\n{profile.shown(box.weight)}, {profile.share(box.weight)}"
    return (
        f'<svg class="{_colour(box.frame)}" x="{_percent(box.start / whole)}" y="{y}" '
        f'width="{_percent(share)}" height="{_BOX}" data-s="{box.start}" data-w="{box.weight}">'
        f'<title>{_text(title)}</title><rect width="100%" height="100%"/>'
        f'<text x="{_PADDING}" y="12">{_text(_fitted(name, share * _WIDTH))}</text></svg>\n'
    )


def _colour(frame: Frame | None) -> str:
    """A class of flame_graph.css. One function has one colour, in every graph."""
    if frame is None:
        return "all"
    shade = crc32(frame.function.encode(errors="replace")) % _SHADES
    return f"{'k' if frame.is_kernel else 'u'}{shade}"


def _fitted(name: str, pixels: float) -> str:
    room = int((pixels - 2 * _PADDING) / _LETTER)
    if len(name) <= room:
        return name
    return "" if room < _FEWEST_LETTERS else f"{name[: room - 1]}…"


def _summary(profile: Profile) -> str:
    return f"{profile.shown(profile.total)} in {counted(len(profile.stacks), 'stack')}"


def _notes(profile: Profile, too_narrow: int) -> Iterator[str]:
    if too_narrow:
        least = f"{_LEAST_PER_MILLE / 10} % of the width"
        yield f"not shown: {counted(too_narrow, 'frame')} below {least}"
    if profile.lost:
        yield f"lost: {counted(profile.lost, 'stack')}"


def _legend(height: int) -> str:
    """What the hues mean."""
    y = height - 19
    swatches: Sequence[tuple[int, str, str]] = ((3, "k4", "kernel"), (83, "u4", "user space"))
    return "".join(
        f'<g class="{colour}"><rect x="{x}" y="{y}" width="12" height="12"/>'
        f'<text x="{x + 17}" y="{height - 9}">{what}</text></g>\n'
        for x, colour, what in swatches
    )


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def _text(text: str) -> str:
    return escape("\n".join(map(printable, text.split("\n"))))


def _asset(name: str) -> str:
    return read_text(os.path.join(_FOLDER, name))
