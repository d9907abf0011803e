# SPDX-License-Identifier: Apache-2.0
"""The plots: a value against the number of functions, one panel per kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot

from _bench.jobs import BATCHPROBE, BCC, BPFTRACE, EVENT_FLOOR, FUNCCOUNT, HIT, LINK
from _bench.results import Result, Results

# A tool looks the same in all plots: ours solid, floors dotted.
_STYLES: Final = {
    BATCHPROBE: ("#0057b7", "-", "o"),
    f"{BATCHPROBE} multi": ("#0057b7", "-", "o"),
    f"{BATCHPROBE} event": ("#00a0a0", "-", "s"),
    f"{BATCHPROBE} perf": ("#7a5cd6", "-", "^"),
    BCC: ("#c03030", "--", "x"),
    FUNCCOUNT: ("#c03030", "--", "x"),
    BPFTRACE: ("#e08000", "--", "d"),
    LINK: ("#888888", ":", "."),
    EVENT_FLOOR: ("#333333", ":", "."),
}
_INCH: Final = 3.6


def draw(found: Results, kind: str, value: str, title: str, file: Path) -> bool:
    """Write the plot to `file`; whether there was anything to draw."""
    results = [result for key, result in sorted(found.items()) if key.kind == kind]
    kernels = sorted({result.key.kernel for result in results})
    if not kernels or kind == HIT:
        return False
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "batchprobe", "font.size": 8})
    figure, axes = pyplot.subplots(
        1,
        len(kernels),
        figsize=(_INCH * len(kernels), _INCH),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    shown = {}
    for panel, kernel in zip(axes[0], kernels, strict=True):
        mine = [result for result in results if result.key.kernel == kernel]
        for tool, (colour, line, marker) in _STYLES.items():
            if points := _points(mine, tool, value):
                xs, ys, lows, highs = zip(*points, strict=True)
                shown[tool] = panel.errorbar(
                    xs, ys, yerr=(lows, highs), color=colour, linestyle=line, marker=marker,
                    markersize=4, linewidth=1.2, capsize=2,
                )  # fmt: skip
        panel.set(xscale="log", yscale="log", title=kernel, xlabel="functions")
        panel.grid(visible=True, which="major", linewidth=0.3)
    axes[0][0].set_ylabel(title)
    if shown:
        names = [tool for tool in _STYLES if tool in shown]
        handles = [shown[tool] for tool in names]
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5))
        figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return bool(shown)


def _points(
    results: Sequence[Result], tool: str, value: str
) -> list[tuple[float, float, float, float]]:
    """Functions attached, the median, and the range below and above it."""
    points = []
    for result in results:
        median = result.median(tool, value)
        if median is None or median <= 0:
            continue
        values = result.values(tool, value)
        attached = result.median(tool, "attached") or result.functions
        points.append((attached, median, median - min(values), max(values) - median))
    return points
