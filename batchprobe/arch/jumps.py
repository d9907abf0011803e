"""Whether a function jumps back to the place behind its patch site.

A loop that begins right there would hit a probe once a turn, and a function that calls itself last
may jump there too. Bytes that only look like a jump are taken for one: such a function is probed at
its entry, which is right as well.
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
    """Whether an instruction from offset `target` on may jump to it.

    `displacements` tells, of the first `unit` bytes of an instruction and the four that follow,
    how many bytes it may lead away from its own begin.
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
    """The low bits of `value` as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
