# SPDX-License-Identifier: Apache-2.0
"""Detects whether a function may jump back to the instruction after its patch site.

A probe there would count each iteration of a loop that starts at this instruction, or each
self-recursive tail call. Data that happens to look like a jump counts as one; such a function is
probed at its entry instead, which is always correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

__all__ = ["may_jump_to", "signed"]


def may_jump_to(
    code: bytes,
    target: int,
    displacements: Callable[[int, int], Iterable[int]],
    *,
    unit: int,
    byteorder: Literal["little", "big"],
) -> bool:
    """Report whether any instruction at or after offset `target` may jump to it.

    `displacements(head, tail)` decodes one instruction: `head` is its first `unit` bytes, `tail`
    the four bytes that follow. It returns the possible jump distances in bytes, measured from the
    start of the instruction.
    """
    end = len(code) - unit + 1
    code += bytes(4)
    for at in range(target, end, unit):
        head = int.from_bytes(code[at : at + unit], byteorder)
        tail = int.from_bytes(code[at + unit : at + unit + 4], byteorder)
        for distance in displacements(head, tail):
            if at + distance == target:
                return True
    return False


def signed(value: int, bits: int) -> int:
    """Sign-extend the low `bits` bits of `value`."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
