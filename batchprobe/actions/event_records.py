# SPDX-License-Identifier: Apache-2.0
"""From the records of a ring buffer (struct event in bpf/values.h) to what JSON can hold."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, overload

from batchprobe.actions.base import RawEvent
from batchprobe.actions.plan import Plan, Shown
from batchprobe.functions.value_types import ValueKind, ValueType
from batchprobe.kernel.errnos import errno_name

__all__ = ["Decoder", "Records", "Text", "can_be_error", "converter", "error_name"]

# time, duration, result, slot, tid, pid, cpu, failed, text_size, text_used, texts, comm
_HEADER = struct.Struct("=QQQIIIHH4sHBx16s")
_VALUES = 16
_TEXT_AT = _HEADER.size + 8 * _VALUES
_MAX_ERRNO = 4095
_SLOT, _SLOT_AT = struct.Struct("=I"), 24
_INT_SIZE, _VALUE_SIZE = 4, 8
_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}


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


def _hex(value: int) -> str:
    return f"{value:#x}"


_CONVERTERS: Mapping[ValueKind, Callable[[int], object]] = {
    ValueKind.INTEGER: int,
    ValueKind.BOOLEAN: bool,
    ValueKind.CHARACTER: lambda value: chr(value & 0xFF),
}


def converter(type_: ValueType | None) -> Callable[[int], object]:
    """Makes of a number what its type is written as: a name, true or false, an address in hex, or a
    number.
    """
    if type_ is None:
        return _hex
    if type_.kind is ValueKind.ENUM:
        names = type_.enumerators
        if type_.is_flags:
            return lambda value: names.get(value) or _flags(value, type_)
        return lambda value: names.get(value, value)
    return _CONVERTERS.get(type_.kind, _hex)


class Decoder:
    """Decodes the records of one function."""

    __slots__ = ("_has_result", "_is_call", "_names", "_result", "_shown", "_values")

    def __init__(self, plan: Plan, *, is_call: bool) -> None:
        self._names = [shown.name for shown in plan.shown]
        self._shown = [(shown.is_text, converter(shown.type)) for shown in plan.shown]
        # A register may have anything above its argument.
        self._values = struct.Struct("=" + "".join(map(_format, plan.shown)))
        self._result = plan.result
        self._has_result = plan.has_result
        self._is_call = is_call

    def fields(self, memory: bytes, begin: int, offset_ns: int) -> Mapping[str, object]:
        """The record that begins there; `offset_ns` is what the clock is behind the time of day."""
        head = _HEADER.unpack_from(memory, begin)
        at, duration, result, _, tid, pid, cpu, failed, text_sizes, _, texts, comm = head
        numbers = self._values.unpack_from(memory, begin + _HEADER.size)
        values: Iterable[object]
        if texts or failed:
            sizes = text_sizes[:texts]
            values = self._with_texts(memory, begin + _TEXT_AT, numbers, failed, sizes)
        else:
            values = [convert(value) for (_, convert), value in zip(self._shown, numbers)]  # noqa: B905
        found: dict[str, object] = {
            "time": (at + offset_ns) // 1000 / 1e6,
            "time_ns": at,
            "cpu": cpu,
            "pid": pid,
            "tid": tid,
            "comm": _text(comm),
        }
        if self._names:
            found["args"] = dict(zip(self._names, values))  # noqa: B905  (it costs time)
        if self._has_result:
            found.update(self._outcome(result))
        if self._is_call:
            found["duration_ns"] = duration
        return found

    def _with_texts(
        self, memory: bytes, at: int, values: Iterable[Any], failed: int, sizes: bytes
    ) -> Iterator[object]:
        """The values of a record with texts, or with memory that could not be read."""
        left = iter(sizes)
        for number, ((is_text, convert), value) in enumerate(zip(self._shown, values, strict=True)):
            size = next(left, 0) if is_text else 0
            if size:
                yield Text(_text(memory[at : at + size]))
                at += size
            else:
                yield None if failed >> number & 1 else convert(value)

    def _outcome(self, result: int) -> Mapping[str, object]:
        type_ = self._result
        if type_ is None:
            return {"result": f"{result:#x}"}
        bits = 8 * type_.size
        as_signed = result & (1 << bits) - 1
        if as_signed >> bits - 1:
            as_signed -= 1 << bits
        if type_.is_signed:
            result = as_signed
        shown: dict[str, object] = {"result": converter(type_)(result)}
        error = error_name(as_signed) if can_be_error(type_) else ""
        return {**shown, "error": error} if error else shown


def can_be_error(type_: ValueType) -> bool:
    """Whether a result of this type may be an error: a negative int or long, or a pointer."""
    if type_.kind is ValueKind.INTEGER:
        return type_.is_signed and type_.size >= _INT_SIZE
    return type_.kind in (ValueKind.POINTER, ValueKind.STRING)


def _format(shown: Shown) -> str:
    """The bytes of a value's type among its eight."""
    type_ = shown.type
    # Of a text, which may be an array of any size, the value is the address.
    if type_ is None or shown.is_text or type_.kind is ValueKind.OTHER:
        return "Q"
    letter = _FORMATS[type_.size]
    number = letter if type_.is_signed else letter.upper()
    unused = f"{_VALUE_SIZE - type_.size}x"
    return number + unused if sys.byteorder == "little" else unused + number


@lru_cache(maxsize=1024)
def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


class Records(Sequence[RawEvent]):
    """Records that were taken out of a ring buffer. Each is decoded when it is asked for."""

    __slots__ = ("_decoders", "_offset_ns", "_starts", "_taken")

    def __init__(
        self,
        taken: bytes,
        starts: Sequence[int],
        decoders: Mapping[int, Decoder],
        offset_ns: int,
    ) -> None:
        """`offset_ns` is what the clock of the records is behind the time of day."""
        self._taken = taken
        self._starts = starts
        self._decoders = decoders
        self._offset_ns = offset_ns

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, at: int) -> RawEvent: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[RawEvent]: ...

    def __getitem__(self, at: int | slice) -> RawEvent | Sequence[RawEvent]:
        if isinstance(at, slice):
            return Records(self._taken, self._starts[at], self._decoders, self._offset_ns)
        begin = self._starts[at]
        (slot,) = _SLOT.unpack_from(self._taken, begin + _SLOT_AT)
        return slot, self._decoders[slot].fields(self._taken, begin, self._offset_ns)
