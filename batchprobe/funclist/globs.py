"""Globs as a function list has them: what matches one, and what every match has in it."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable

__all__ = ["fixed_part", "matcher"]

# One character or more that a glob does not tell.
_UNKNOWN = re.compile(r"\*|\?|\[[!^]?[^]]+\]")


@functools.lru_cache
def matcher(glob: str) -> Callable[[str], object]:
    """Says by its truth whether the glob covers a name."""
    # fnmatch knows [!...] only, a shell [^...] as well
    return re.compile(fnmatch.translate(glob.replace("[^", "[!"))).match


def fixed_part(glob: str) -> str:
    """What every name that it matches has in it; a newline before what it begins with."""
    first, *others = _UNKNOWN.split(glob)
    return max(f"\n{first}" if first else "", *others, key=len)
