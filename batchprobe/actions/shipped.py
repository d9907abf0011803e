# SPDX-License-Identifier: Apache-2.0
"""The actions that scripts/build-programs compiles ahead."""

from batchprobe.actions.base import Action
from batchprobe.actions.count import Count

__all__ = ["SHIPPED"]

SHIPPED: tuple[type[Action], ...] = (Count,)
