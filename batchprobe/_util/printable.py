# SPDX-License-Identifier: Apache-2.0
"""Text that a terminal shows and does not obey."""

from __future__ import annotations

__all__ = ["printable"]


def printable(name: str) -> str:
    r"""The name with everything escaped that is no visible character: `\n`, `\x1b`, `\udc80`.

    Names of user space are whatever a binary has in its symbols, and those of tasks what they say.
    """
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
