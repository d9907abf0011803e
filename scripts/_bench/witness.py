# SPDX-License-Identifier: Apache-2.0
"""Detects armed probes in the kernel's code, which arming a probe changes (x86)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batchprobe.kernel.kcore import Kcore

_REACH = 16
_NOP5 = bytes.fromhex("0f1f440000")
_CALL, _JUMP, _BREAKPOINT = 0xE8, 0xE9, 0xCC
_POLL_SECONDS = 0.005
# Functions to check between two pauses, and at most in all.
_WINDOW = 5
_SAMPLE = 300


def is_armed(before: bytes, now: bytes) -> bool:
    """Whether a probe was armed between two looks at the beginning of a function.

    A breakpoint at the patch site means that the kernel is still writing ftrace's call.
    """
    for at, (old, new) in enumerate(zip(before, now, strict=True)):
        if old != new:
            is_patch_site = before[at : at + len(_NOP5)] == _NOP5
            return new in (_CALL, _JUMP) or (new == _BREAKPOINT and not is_patch_site)
    return False


@dataclass(frozen=True)
class Armed:
    """Seconds until the first and the last function was seen armed."""

    first: float
    last: float


class Witness:
    """Watches functions, reading some bytes at a time: watching must not slow the tool.

    If no further function is armed for `stall_seconds`, the tool has left the rest out.
    """

    def __init__(self, addresses: Iterable[int], stall_seconds: float = 3.0) -> None:
        self._stall_seconds = stall_seconds
        self._text = Kcore()
        self._before: dict[int, bytes] = {}
        for address in addresses:
            code = self._text.read(address, _REACH)
            if code is None:
                raise RuntimeError(f"the kernel's code cannot be read: {self._text.reason}")
            self._before[address] = code

    def close(self) -> None:
        """Stop watching."""
        self._text.close()

    def is_armed(self, address: int) -> bool:
        """Whether it has a probe now."""
        return is_armed(self._before[address], self._text.read(address, _REACH) or b"")

    def armed(self) -> int:
        """How many have a probe now."""
        return sum(map(self.is_armed, self._before))

    def wait(self, began: float, go_on: Callable[[], bool]) -> Armed:
        """Wait until a sample of them is armed, or no more are, or `go_on` returns false."""
        first = last = 0.0
        addresses = list(self._before)
        waiting = deque(addresses[:: -(-len(addresses) // _SAMPLE)])
        quiet = 0
        while waiting and go_on():
            if self.is_armed(waiting[0]):
                waiting.popleft()
                last = time.perf_counter()
                first = first or last
                quiet = 0
                continue
            waiting.rotate(-1)
            quiet += 1
            if quiet % _WINDOW == 0 or quiet == len(waiting):
                if last and time.perf_counter() - last > self._stall_seconds:
                    break
                time.sleep(_POLL_SECONDS)
        return Armed(first - began, last - began)
