# SPDX-License-Identifier: Apache-2.0
"""Numbers that may be unknown: None is not 0."""

from __future__ import annotations

__all__ = ["sum_of_known"]


def sum_of_known(*counts: int | None) -> int | None:
    """Their sum; None if any is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
