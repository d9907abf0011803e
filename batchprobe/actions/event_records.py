# SPDX-License-Identifier: Apache-2.0
"""From the records of a ring buffer (struct event in bpf/values.h) to what JSON can hold."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping

from batchprobe.actions.base import RawEvent
from batchprobe.actions.plan import Plan, Shown
from batchprobe.functions.value_types import ValueKind, ValueType
from batchprobe.kernel.errnos import errno_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Decoder", "Text", "error_name", "reader", "shown_value"]

# time, duration, result, slot, tid, pid, cpu, failed, text_size, text_used, texts, comm
_HEADER = struct.Struct("=QQQIIIHH4sHBx16s")
_VALUES = 16
_TEXT_AT = _HEADER.size + 8 * _VALUES
_MAX_ERRNO = 4095
_SLOT_AT, _SLOT_SIZE = 24, 4


class Text(str):
    """What was read at a pointer to characters, unlike names that stand for numbers."""

    __slots__ = ()


def error_name(value: int) -> str:
    """`ENOSPC` for -28 and for the error pointer of -28; empty for what is no error."""
    number = (1 << 64) - value if value >= 1 << 63 else -value
    return errno_name(number) if 0 < number <= _MAX_ERRNO else ""


def _flags(value: int, type_: ValueType) -> str:
    names = [name for bit, name in type_.enumerators.items() if bit and value & bit == bit]
    rest = value
    for bit, name in type_.enumerators.items():
        if name in names:
            rest &= ~bit
    return "|".join([*names, *([f"{rest:#x}"] if rest or not names else [])])


def shown_value(value: int, type_: ValueType | None) -> object:
    """A number as its type is written: a name, true or false, an address in hex, or a number."""
    kind = ValueKind.POINTER if type_ is None else type_.kind
    if kind is ValueKind.INTEGER:
        return value
    if kind is ValueKind.BOOLEAN:
        return bool(value)
    if kind is ValueKind.CHARACTER:
        return chr(value & 0xFF)
    if type_ is not None and kind is ValueKind.ENUM:
        found = type_.enumerators.get(value)
        return found or (_flags(value, type_) if type_.is_flags else value)
    return f"{value:#x}"


class Decoder:
    """Decodes the records of one function."""

    __slots__ = ("_count", "_has_result", "_is_call", "_result", "_shown", "_values")

    def __init__(self, plan: Plan, *, is_call: bool) -> None:
        self._shown = plan.shown
        self._count = len(plan.shown)
        # Signed: a value is sign-extended if its type is signed, and looked at as unsigned if not.
        self._values = struct.Struct("=" + "".join(map(_format, plan.shown)))
        self._result = plan.result
        self._has_result = plan.has_result
        self._is_call = is_call

    def fields(self, memory: memoryview, begin: int, offset_ns: int) -> Mapping[str, object]:
        """The record that begins there; `offset_ns` is what the clock is behind the time of day."""
        head = _HEADER.unpack_from(memory, begin)
        at, duration, result, _, tid, pid, cpu, failed, text_sizes, _, texts, comm = head
        values = self._values.unpack_from(memory, begin + _HEADER.size)
        arguments: dict[str, object] = {}
        text_at, text = begin + _TEXT_AT, 0
        for number, (shown, value) in enumerate(zip(self._shown, values, strict=True)):
            if shown.is_text and text < texts:
                size = text_sizes[text]
                text += 1
                if size:
                    arguments[shown.name] = Text(_text(bytes(memory[text_at : text_at + size])))
                    text_at += size
                    continue
            is_bad = failed >> number & 1
            arguments[shown.name] = None if is_bad else shown_value(value, shown.type)
        found: dict[str, object] = {
            "time": round((at + offset_ns) / 1e9, 6),
            "time_ns": at,
            "cpu": cpu,
            "pid": pid,
            "tid": tid,
            "comm": _text(comm),
        }
        if self._count:
            found["args"] = arguments
        if self._has_result:
            found.update(self._outcome(result))
        if self._is_call:
            found["duration_ns"] = duration
        return found

    def _outcome(self, result: int) -> Mapping[str, object]:
        type_ = self._result
        if type_ is None:
            return {"result": f"{result:#x}"}
        error = ""
        if type_.is_signed or type_.kind in (ValueKind.POINTER, ValueKind.STRING):
            error = error_name(result)
        if type_.is_signed and result >= 1 << 63:
            result -= 1 << 64
        if error:
            return {"result": result if type_.is_signed else f"{result:#x}", "error": error}
        return {"result": shown_value(result, type_)}


def _format(shown: Shown) -> str:
    return "q" if shown.type is not None and shown.type.is_signed else "Q"


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


def slot_of(memory: memoryview, begin: int) -> int:
    """The slot of the record that begins there."""
    return int.from_bytes(memory[begin + _SLOT_AT : begin + _SLOT_AT + _SLOT_SIZE], sys.byteorder)


def reader(
    decoders: Mapping[int, Decoder], offset_ns: int
) -> Callable[[memoryview, int, int], RawEvent]:
    """Decodes any record of one ring buffer."""

    def decode(memory: memoryview, begin: int, end: int) -> RawEvent:
        del end
        slot = slot_of(memory, begin)
        return slot, decoders[slot].fields(memory, begin, offset_ns)

    return decode
