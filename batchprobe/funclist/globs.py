# SPDX-License-Identifier: Apache-2.0
"""Globs in function lists: matching names, and the text all matching names have in common."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache

__all__ = ["fixed_part", "matcher"]

_WILDCARD = re.compile(r"\*|\?|\[[!^]?[^]]+\]")


@lru_cache
def matcher(glob: str) -> Callable[[str], object]:
    """Return a function whose result is true for names that the whole `glob` matches."""
    # fnmatch knows [!...] only; shells also accept [^...].
    return re.compile(fnmatch.translate(glob.replace("[^", "[!"))).match


def fixed_part(glob: str) -> str:
    """Return the longest fixed text of `glob`, which every matching name contains.

    A leading newline means that the name starts with this text.
    """
    first, *others = _WILDCARD.split(glob)
    return max(f"\n{first}" if first else "", *others, key=len)
