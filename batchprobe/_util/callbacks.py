# SPDX-License-Identifier: Apache-2.0
"""Default callbacks."""

from __future__ import annotations

__all__ = ["ignore"]


def ignore(*_arguments: object) -> None:
    """Do nothing."""
