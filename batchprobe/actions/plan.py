# SPDX-License-Identifier: Apache-2.0
"""What is read at a hit, and which hits are wanted: the plan of one function, for bpf/values.h.

One program serves all functions. The first values of a hit are the registers of arguments, as they
are. Then it walks the steps of its slot's plan: each takes one of the values or what the last step
came to, adds an offset, may read memory there, and may keep the outcome as a value. Then it follows
the comparisons.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from batchprobe.actions.condition import ACCEPT, ALL_BITS, REJECT, Comparison, Condition
from batchprobe.arch import Arch
from batchprobe.functions.member_path import Access
from batchprobe.functions.signatures import Signature
from batchprobe.functions.value_types import ValueKind, ValueType

__all__ = [
    "MAX_SHOWN",
    "NOTHING",
    "PLAN_SIZE",
    "Plan",
    "PlanError",
    "Shown",
    "make_plan",
]

# As in bpf/values.h.
_STEPS, _COMPARISONS = 24, 16
MAX_SHOWN = 12
"""Values that an event can have."""
_KEPT = 14
_RESULT, _DURATION = 14, 15
_TEXTS = 4
_KEEP, _SIGNED, _SWAP, _TEXT, _USER = 1, 2, 4, 8, 16
_PREVIOUS = 0xFF
_VERDICTS = {ACCEPT: 0xFF, REJECT: 0xFE}
_EQUAL, _BELOW, _BELOW_OR_EQUAL, _LESS, _LESS_OR_EQUAL = range(5)
_PLAN = struct.Struct("=8B")
_STEP = struct.Struct("=i6B6x")
_COMPARISON = struct.Struct("=QQ4B4x")
PLAN_SIZE = _PLAN.size + _STEPS * _STEP.size + _COMPARISONS * _COMPARISON.size
_WORD_MASK = (1 << 64) - 1
_SIGNED_END = 1 << 63
_FARTHEST = 1 << 31


class PlanError(Exception):
    """Why a function cannot be asked for what the user wants."""


class Shown(NamedTuple):
    """A value of an event."""

    name: str
    type: ValueType | None
    """None for a register of a function whose types are unknown."""
    is_text: bool = False


class Plan(NamedTuple):
    """A plan, and what its events have."""

    packed: bytes
    shown: tuple[Shown, ...]
    result: ValueType | None
    """None if there is none, its type is unknown, or it takes more than a register."""
    has_result: bool


class _Steps:
    def __init__(self, arch: Arch, compared: Collection[str]) -> None:
        """`compared` are the names in the condition."""
        self._compared = compared
        self._word = arch.bits // 8
        self._swaps = arch.byteorder == "little"
        self._packed: list[bytes] = []
        self.texts = 0

    def copy(self, register: int, to: int) -> None:
        """Keep a register whose place another value takes."""
        self._add(0, register, 0, to, _KEEP)

    def keep_argument(self, signature: Signature, number: int, base: int) -> bool:
        """Make an argument the value of its number; returns whether the text there is read.

        `base` has the address of what `accesses` says. An argument in a register needs a step only
        if the program compares, swaps or follows it: a reader takes the bits of its type.
        """
        name, type_, _ = signature.parameters[number]
        is_text = type_.kind is ValueKind.STRING and self.texts < _TEXTS
        if signature.accesses:
            # What system calls point to is user space's.
            self.keep(base, signature.accesses[number], number, is_text=is_text, is_user=True)
        elif is_text or type_.is_network_order or name in self._compared:
            whole = Access(number, (), type_, 0, 8 * type_.size)
            self.keep(number, whole, number, is_text=is_text)
        return is_text

    def keep(
        self, base: int, access: Access, to: int, *, is_text: bool, is_user: bool = False
    ) -> None:
        """Read a value by way of the one of number `base`, and keep it as number `to`."""
        flags, left, right = _KEEP, 0, 0
        if is_text:
            if self.texts == _TEXTS:
                raise PlanError(f"an event has at most {_TEXTS} texts")
            self.texts += 1
            flags |= _TEXT | _USER if is_user else _TEXT
        elif access.is_embedded:
            raise PlanError("text cannot be compared in the kernel")
        elif access.type.kind is ValueKind.OTHER:
            raise PlanError(f"a {access.type.name} is no single number: name a member of it")
        else:
            how, left, right = self._conversion(access.type, access.shift, access.bits)
            flags |= how
        steps = access.steps
        for offset in steps[:-1]:
            self._add(offset, base, self._word)
            base = _PREVIOUS
        last, size = (steps[-1], 0 if access.is_embedded else access.type.size) if steps else (0, 0)
        self._add(last, base, size, to, flags, left, right)

    def _conversion(self, type_: ValueType, shift: int, bits: int) -> tuple[int, int, int]:
        if type_.is_network_order and self._swaps:
            return _SWAP, 0, 64 - 8 * type_.size
        bits = bits or 8 * type_.size
        return (_SIGNED if type_.is_signed else 0), 64 - shift - bits, 64 - bits

    def _add(
        self,
        offset: int,
        base: int,
        size: int,
        to: int = 0,
        flags: int = 0,
        left: int = 0,
        right: int = 0,
    ) -> None:
        if offset >= _FARTHEST:
            raise PlanError("what it names is over 2 GiB from where the pointer points")
        self._packed.append(_STEP.pack(offset, base, size, to, flags, left, right))
        if len(self._packed) > _STEPS:
            raise PlanError(f"its values take over {_STEPS} steps to read")

    @property
    def count(self) -> int:
        return len(self._packed)

    @property
    def packed(self) -> bytes:
        return b"".join(self._packed).ljust(_STEPS * _STEP.size, b"\0")


def _is_text(type_: ValueType) -> bool:
    return type_.kind is ValueKind.STRING


def _is_plain(type_: ValueType, arch: Arch) -> bool:
    """Whether it is a number that fits a register."""
    return type_.kind is not ValueKind.OTHER and 8 * type_.size <= arch.bits


def registers_of(signature: Signature, arch: Arch) -> list[int]:
    """The registers of the first parameters, up to one that is not in a register of its own."""
    result = signature.result
    if result is not None and result.kind is ValueKind.OTHER and result.size > arch.largest_result:
        return []
    if signature.is_variadic and not arch.variadic_in_registers:
        return []
    found = []
    for number, parameter in enumerate(signature.parameters):
        if not _is_plain(parameter.type, arch) or number >= len(arch.registers.arguments):
            break
        found.append(number)
    return found


def make_plan(
    arch: Arch,
    signature: Signature | None,
    access: Callable[[Signature, str], Access],
    *,
    at_entry: bool,
    at_return: bool,
    paths: Sequence[str] = (),
    condition: Condition | None = None,
) -> Plan:
    """The plan of a function. Without a signature, its events have the registers of arguments.

    `access` finds a path, and raises an exception whose text says why there is none. Raises
    PlanError for a function that lacks what `paths` or the condition name.
    """
    steps = _Steps(arch, condition.paths if condition is not None else ())
    shown: list[Shown] = []
    accesses: dict[str, tuple[int, ValueType]] = {}
    registers: list[int] = []
    # Each argument of a system call is found through the first register.
    has_accesses = signature is not None and bool(signature.accesses) and at_entry
    most_kept = _KEPT - has_accesses
    if has_accesses:
        steps.copy(0, to=most_kept)
    if signature is not None and at_entry:
        registers = registers_of(signature, arch)
        for number in registers[:MAX_SHOWN]:
            parameter = signature.parameters[number]
            is_text = steps.keep_argument(signature, number, base=most_kept)
            accesses[parameter.name] = len(shown), parameter.type
            shown.append(Shown(parameter.name, parameter.type, is_text))
    elif at_entry:
        shown += [Shown(f"arg{number}", None) for number in range(len(arch.registers.arguments))]

    def find(path: str, to: int, *, may_be_text: bool) -> tuple[ValueType, bool]:
        if signature is None:
            raise PlanError("its types are unknown")
        if not at_entry:
            raise PlanError("the arguments are known at the entry only")
        found = access(signature, _without_prefix(path, signature))
        if found.parameter not in registers:
            raise PlanError(f"{path} is not passed in a register of its own")
        base, found = _from_value(found, signature, address=most_kept)
        is_text = may_be_text and (_is_text(found.type) or found.is_embedded)
        steps.keep(base, found, to, is_text=is_text, is_user=bool(signature.accesses))
        return found.type, is_text

    for path in paths:
        if path not in accesses:
            if len(shown) == MAX_SHOWN:
                raise PlanError(f"an event has at most {MAX_SHOWN} values")
            type_, is_text = find(path, len(shown), may_be_text=True)
            accesses[path] = len(shown), type_
            shown.append(Shown(path, type_, is_text))
    kept = len(shown)
    for path in condition.paths if condition is not None else ():
        if path not in accesses:
            if kept == most_kept:
                raise PlanError(f"at most {most_kept} values can be read")
            accesses[path] = kept, find(path, kept, may_be_text=False)[0]
            kept += 1
    result = signature.result if signature is not None else None
    has_result = at_return and (signature is None or result is not None)
    if result is not None and not _is_plain(result, arch):
        if condition is not None and condition.uses_result and at_return:
            raise PlanError(f"its result, a {result.name}, is no single number")
        result = None
    comparisons, begins = _packed_condition(
        condition, accesses, result if has_result else None, has_result, at_entry, at_return
    )
    head = _PLAN.pack(
        steps.count, len(shown), *begins, at_return and not at_entry, *_result_conversion(result)
    )
    return Plan(head + steps.packed + comparisons, tuple(shown), result, has_result)


def _from_value(found: Access, signature: Signature, address: int) -> tuple[int, Access]:
    """The value that a path begins at, and its way from there. `address` is that of `accesses`."""
    if signature.accesses:
        # A whole argument: the types of trace events have no members.
        return address, signature.accesses[found.parameter]
    if not found.steps:
        # Its value is in the machine's order by now.
        found = found._replace(type=found.type._replace(is_network_order=False))
    return found.parameter, found


def _result_conversion(result: ValueType | None) -> tuple[int, int, int]:
    if result is None:
        return 0, 0, 0
    unused = 64 - 8 * result.size
    return unused, unused, _SIGNED if result.is_signed else 0


def _without_prefix(path: str, signature: Signature) -> str:
    """`arg.result` is the argument that is called `result`."""
    if any(parameter.name == "arg" for parameter in signature.parameters):
        return path
    return path.removeprefix("arg.")


NOTHING = _PLAN.pack(0, 0, 0xFF, 0xFE, 0, 0, 0, 0).ljust(PLAN_SIZE, b"\0")
"""The plan of a probe that is only tried: its calls are followed, and none is wanted."""


def _packed_condition(
    condition: Condition | None,
    accesses: dict[str, tuple[int, ValueType]],
    result: ValueType | None,
    has_result: bool,
    at_entry: bool,
    at_return: bool,
) -> tuple[bytes, tuple[int, int]]:
    """The comparisons, and the numbers of the first ones at the entry and at the return."""
    packed: list[bytes] = []
    begins = [0xFF, 0xFF]
    if condition is not None:
        if condition.uses_result and not has_result:
            raise PlanError("it returns nothing" if at_return else "its result is not known yet")
        if condition.uses_duration and not (at_entry and at_return):
            raise PlanError("only calls have a duration")
        # A probe at one end decides everything there.
        parts = condition.split() if at_entry and at_return else (condition, None)
        for number, part in enumerate(parts):
            if part is None:
                continue
            begins[number] = base = len(packed)
            for one in part.compiled():
                packed.append(_packed_comparison(one, base, accesses, result))
    if len(packed) > _COMPARISONS:
        raise PlanError(f"the condition has over {_COMPARISONS} comparisons")
    text = b"".join(packed).ljust(_COMPARISONS * _COMPARISON.size, b"\0")
    return text, (begins[0], begins[1])


def _packed_comparison(
    one: Comparison,
    base: int,
    accesses: dict[str, tuple[int, ValueType]],
    result: ValueType | None,
) -> bytes:
    type_: ValueType | None
    if one.path == "result":
        value, type_ = _RESULT, result
    elif one.path == "duration":
        value, type_ = _DURATION, None
    elif one.path in accesses:
        value, type_ = accesses[one.path]
    else:
        raise PlanError(f"{one.path} is not read: only the result itself can be compared")
    constant = one.constant
    if isinstance(constant, str):
        constant = _enumerator(constant, type_, one.path)
    is_signed = type_ is not None and type_.is_signed
    if one.operator not in ("==", "!="):
        decides_nothing = constant < 0 or (constant == 0 and one.operator in ("<", ">="))
        if decides_nothing and not is_signed:
            raise PlanError(f"{one.path} is unsigned: it is never less than 0")
        if constant >= _SIGNED_END and is_signed:
            raise PlanError(f"{one.path} is signed: it is always less than {_SIGNED_END}")
    on_true, on_false = (
        _VERDICTS[target] if target in _VERDICTS else base + target
        for target in (one.on_true, one.on_false)
    )
    operator = one.operator
    if operator in ("!=", ">", ">="):
        operator = {"!=": "==", ">": "<=", ">=": "<"}[operator]
        on_true, on_false = on_false, on_true
    operation = {
        "==": _EQUAL,
        "<": _LESS if is_signed else _BELOW,
        "<=": _LESS_OR_EQUAL if is_signed else _BELOW_OR_EQUAL,
    }[operator]
    if type_ is not None and operation == _EQUAL:
        constant = _converted(constant, type_, is_masked=one.mask != ALL_BITS)
    return _COMPARISON.pack(
        one.mask & _WORD_MASK, constant & _WORD_MASK, value, operation, on_true, on_false
    )


def _converted(constant: int, type_: ValueType, *, is_masked: bool) -> int:
    """The constant as C converts it to the type: `flags == -1` of an unsigned int, and
    `flags == 0x80000000` of an int.
    """
    bits = 8 * type_.size
    if not type_.is_signed and -(1 << bits - 1) <= constant < 0:
        return constant + (1 << bits)
    # A mask has cut off the sign.
    if type_.is_signed and not is_masked and 1 << bits - 1 <= constant < 1 << bits:
        return constant - (1 << bits)
    return constant


def _enumerator(name: str, type_: ValueType | None, path: str) -> int:
    if type_ is None or not type_.enumerators:
        raise PlanError(f"{name} is no number, and {path} is no enum")
    for value, text in type_.enumerators.items():
        if text == name:
            return value
    raise PlanError(f"{type_.name} has no {name}")
