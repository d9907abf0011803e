"""What batchprobe's command tells of its commit."""

from __future__ import annotations

import re


def phases(said: str) -> dict[str, float]:
    """Seconds of batchprobe's own phases, from what it tells at its end; none of other tools."""
    found = re.search(r"gates ([\d.]+) ms, final after ([\d.]+) ms, reclaimed in ([\d.]+) s", said)
    if not found:
        return {}
    top, barrier, reclaim = map(float, found.groups())
    return {"top": top / 1e3, "barrier": barrier / 1e3, "reclaim": reclaim}
