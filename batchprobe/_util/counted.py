# SPDX-License-Identifier: Apache-2.0
"""A number with its noun."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 probe`, `2 probes`, `2 entries`; `plural` where an s is not enough."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
