# SPDX-License-Identifier: Apache-2.0
"""Shipped filters as one word of a command line, and back: for `batchprobe run`, which becomes
another Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module

from batchprobe.filters.scope import ScopeFilter

__all__ = ["SHIPPED", "as_word", "from_word"]

SHIPPED = {
    "pid": ("pid", "Pid"),
    "tid": ("pid", "Tid"),
    "children": ("children", "Children"),
    "comm": ("comm", "Comm"),
    "uid": ("uid", "Uid"),
    "cpu": ("cpu", "Cpu"),
    "cgroup": ("cgroup", "Cgroup"),
    "netns": ("netns", "NetNamespace"),
}
"""Module and class of each filter, by its name."""


def as_word(filters: Sequence[ScopeFilter]) -> str:
    """These filters, in plain ASCII and without white space at the ends."""
    return json.dumps({one.name: list(one.arguments()) for one in filters})


def from_word(word: str) -> list[ScopeFilter]:
    """The filters of `as_word`. Raises ValueError for what is none any more, such as a cgroup that
    was removed.
    """
    return [_made(name, arguments) for name, arguments in json.loads(word).items()]


def _made(name: str, arguments: Sequence[int | str]) -> ScopeFilter:
    module, kind = SHIPPED[name]
    make: Callable[..., ScopeFilter] = getattr(import_module(f"batchprobe.filters.{module}"), kind)
    return make(*arguments)
