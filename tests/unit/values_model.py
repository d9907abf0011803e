# SPDX-License-Identifier: Apache-2.0
"""bpf/values.h in Python: runs a plan on registers and a memory of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from c_layout import VALUES

from batchprobe.arch import Arch

WORD = 1 << 64
_LIMITS = VALUES.constants
ACCEPT, REJECT = _LIMITS["ACCEPT"], _LIMITS["REJECT"]


class Memory:
    """What is at which address; nothing else can be read."""

    def __init__(self, regions: Mapping[int, bytes] | None = None) -> None:
        self.regions = dict(regions or {})

    def read(self, address: int, size: int) -> bytes | None:
        """These bytes, or None for a fault."""
        for begin, content in self.regions.items():
            if begin <= address and address + size <= begin + len(content):
                return content[address - begin : address - begin + size]
        return None

    def text(self, address: int) -> bytes | None:
        """As bpf_probe_read_kernel_str() copies it: with a NUL, and cut to TEXT_SIZE."""
        found = b""
        while len(found) < _LIMITS["TEXT_SIZE"] - 1:
            byte = self.read(address + len(found), 1)
            if byte is None:
                return None
            if byte == b"\0":
                break
            found += byte
        return found + b"\0"


def fields(of: str, raw: bytes, at: int) -> dict[str, int]:
    """The members of a struct that are numbers."""
    return {
        name: int.from_bytes(
            raw[at + one.offset : at + one.offset + one.size],
            sys.byteorder,
            signed=one.type[0] == "s",
        )
        for name, one in VALUES.structs[of].members.items()
        if not one.length
    }


def elements(packed: bytes, name: str) -> list[dict[str, int]]:
    """The steps or the comparisons of a plan."""
    array = VALUES.structs["plan"].members[name]
    return [fields(name, packed, array.offset + n * array.size) for n in range(array.length)]


def signed(value: int) -> int:
    """A u64 as s64."""
    return value - WORD if value >> 63 else value


def shifted(value: int, left: int, right: int, flags: int) -> int:
    """Shifts in 64 bits: those to the right extend the sign if the flags say so."""
    value = (value << (left & 63)) % WORD
    if flags & _LIMITS["STEP_SIGNED"]:
        return (signed(value) >> (right & 63)) % WORD
    return value >> (right & 63)


class Run:
    """A hit: what was read at its entry, and later its result."""

    def __init__(
        self, packed: bytes, arch: Arch, registers: Sequence[int], memory: Memory | None = None
    ) -> None:
        self.packed = packed
        self.head = fields("plan", packed, 0)
        self.values = [0] * _LIMITS["VALUES"]
        assert len(registers) <= _LIMITS["REGISTERS"]
        self.values[: len(registers)] = registers
        self.failed: set[int] = set()
        self.texts: list[bytes] = []
        self.user_texts = 0
        memory = memory or Memory()
        value, is_bad = 0, False
        steps = elements(packed, "step")[: self.head["steps"]]
        for step in steps:
            if step["from"] != _LIMITS["STEP_PREVIOUS"]:
                value, is_bad = self.values[step["from"]], False
            value = (value + step["offset"]) % WORD
            if step["size"]:
                # A pointer of the program has the kernel's size.
                found = memory.read(value % (1 << arch.bits), step["size"])
                is_bad = is_bad or found is None
                value = int.from_bytes(found or b"", arch.byteorder)
            if step["flags"] & _LIMITS["STEP_TEXT"]:
                assert len(self.texts) < _LIMITS["TEXTS"]
                self.texts.append(memory.text(value % (1 << arch.bits)) or b"")
                self.user_texts += bool(step["flags"] & _LIMITS["STEP_USER"])
            if step["flags"] & _LIMITS["STEP_KEEP"]:
                self._keep(step, value, is_bad)

    def _keep(self, step: Mapping[str, int], value: int, is_bad: bool) -> None:
        if step["flags"] & _LIMITS["STEP_SWAP"]:
            value = int.from_bytes(value.to_bytes(8, "little"), "big")
        self.values[step["to"]] = shifted(value, step["left"], step["right"], step["flags"])
        if is_bad:
            self.failed.add(step["to"])

    def end(self, result: int, duration: int = 0) -> None:
        """The call returns."""
        head = self.head
        self.values[_LIMITS["RESULT"]] = shifted(
            result, head["result_left"], head["result_right"], head["result_flags"]
        )
        self.values[_LIMITS["DURATION"]] = duration

    @property
    def is_wanted_at_entry(self) -> bool:
        return self._is_wanted(self.head["at_entry"])

    @property
    def is_wanted_at_return(self) -> bool:
        return self._is_wanted(self.head["at_return"])

    def _is_wanted(self, at: int) -> bool:
        comparisons = elements(self.packed, "comparison")
        while at < len(comparisons):
            one = comparisons[at]
            if one["value"] in self.failed:
                return False
            value, constant = self.values[one["value"]] & one["mask"], one["constant"]
            holds = {
                _LIMITS["IS_EQUAL"]: value == constant,
                _LIMITS["IS_BELOW"]: value < constant,
                _LIMITS["IS_BELOW_OR_EQUAL"]: value <= constant,
                _LIMITS["IS_LESS"]: signed(value) < signed(constant),
                _LIMITS["IS_LESS_OR_EQUAL"]: signed(value) <= signed(constant),
            }[one["operation"]]
            following = one["on_true"] if holds else one["on_false"]
            # The program takes no more turns than there are comparisons.
            assert following > at
            at = following
        assert at in (ACCEPT, REJECT)
        return at == ACCEPT
