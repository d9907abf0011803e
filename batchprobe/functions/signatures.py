# SPDX-License-Identifier: Apache-2.0
"""Names and types of the arguments and results of kernel functions.

They come from BTF, of the kernel and of each module. What was found in it is kept until the next
boot, because to find it takes longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from batchprobe.errors import BatchprobeError, KernelError, UnsupportedError
from batchprobe.functions.cache import SymbolCache
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.member_path import Access, access
from batchprobe.functions.value_types import ValueType, ValueTypes
from batchprobe.kernel.btf import KernelBtf, open_btf
from batchprobe.kernel.btf_types import BtfTypes, Kind

__all__ = ["NoTypesError", "Parameter", "Signature", "Signatures", "signatures_of"]

_UNUSED = "__unused"


class NoTypesError(BatchprobeError):
    """The types of a function's arguments are not known.

    The text is a part of a sentence that says why.
    """


class Parameter(NamedTuple):
    """A parameter of a function."""

    name: str
    """"arg0" and so on where the kernel gives it none."""
    type: ValueType
    number: int
    """The number of its type in BTF."""


class Signature(NamedTuple):
    """What a function takes and returns."""

    parameters: tuple[Parameter, ...]
    result: ValueType | None
    """None of a function that returns nothing."""
    is_variadic: bool
    """Whether "..." follows the parameters."""
    result_number: int
    """The number of the result's type in BTF; 0 if there is none."""
    module: str | None
    """Whose BTF has the types; None is the kernel."""
    accesses: tuple[Access, ...] = ()
    """Where each argument is, if that is no register of its own: of a system call."""
    number: int = 0
    """The number of the prototype in BTF, which many functions share; 0 if it is pieced together
    from several.
    """


class Signatures:
    """Signatures by name of function."""

    def __init__(
        self,
        cache: SymbolCache | None,
        read: Callable[[str | None], bytes] | None = None,
        count: Callable[[str, str], int] = lambda _name, _module: 1,
    ) -> None:
        """`count` says how many functions of a module (empty: the kernel) have a name. BTF may have
        one of them only, as in kernels built with pahole before 1.25.
        """
        self._cache = cache
        self._count = count
        self._read = read or self._read_kernel
        self._btf: KernelBtf | None = None
        self._values: dict[str | None, ValueTypes] = {}
        self._known: dict[tuple[str | None, int], Signature] = {}
        # Why the kernel has no types, not to look again for each function. Of a module this can
        # change: it may be loaded later.
        self._reason = ""

    def of(self, name: str, module: str | None = None) -> Signature:
        """The signature of a function of this module, or of the core kernel: None or "".

        Raises NoTypesError.
        """
        _, dot, variant = name.partition(".")
        if dot:
            raise NoTypesError(f"a variant that the compiler made (.{variant})")
        try:
            values = self._values_of(module or None)
        except UnsupportedError as error:
            raise NoTypesError(error.message) from error
        if self._count(name, module or "") > 1:
            raise NoTypesError("several functions have this name")
        types = values.types
        prototypes = {types[number].of for number in types.named(name, {Kind.FUNCTION})}
        if not prototypes:
            raise NoTypesError(
                "BTF leaves it out: its callers disagree about its prototype, the compiler made a "
                "variant of it, or it is no C"
            )
        found = [self._signature(values, number, module or None) for number in sorted(prototypes)]
        return found[0] if len(found) == 1 else _same(found)

    def _signature(self, values: ValueTypes, number: int, module: str | None) -> Signature:
        known = self._known.get((module, number))
        if known is None:
            known = self._known[module, number] = _signature(values, number, module)
        return known

    def access(self, signature: Signature, path: str) -> Access:
        """Where the value of a path such as `skb->len` is found. Raises PathError."""
        roots = {one.name: (index, one.number) for index, one in enumerate(signature.parameters)}
        values = self._values_of(signature.module)
        return access(values, roots, signature.result_number, path)

    def _values_of(self, module: str | None) -> ValueTypes:
        if (known := self._values.get(module)) is not None:
            return known
        if self._reason:
            raise UnsupportedError(self._reason)
        base = None if module is None else self._values_of(None).types
        try:
            values = self._values[module] = ValueTypes(self._types(module, base))
        except (UnsupportedError, KernelError) as error:
            reason = error.message if isinstance(error, UnsupportedError) else str(error)
            if module is None:
                self._reason = reason
            raise UnsupportedError(reason) from error
        return values

    def _types(self, module: str | None, base: BtfTypes | None) -> BtfTypes:
        if self._cache is None:
            return BtfTypes.read(self._read(module), base)
        packed = self._cache.mapped(
            "types" if module is None else f"types-{module}",
            lambda: BtfTypes.read(self._read(module), base).packed,
        )
        return BtfTypes.unpacked(packed, base)

    def _read_kernel(self, module: str | None) -> bytes:
        if self._btf is None:
            self._btf = open_btf()
        return self._btf.raw(module)


def signatures_of(symbols: KernelSymbols) -> Signatures:
    """Those of the running kernel. Raises UnsupportedError where its symbols cannot be read."""
    table = symbols.table()

    def count(name: str, module: str) -> int:
        return table.count(name, module)

    return Signatures(symbols.cache, count=count)


def _signature(values: ValueTypes, prototype: int, module: str | None) -> Signature:
    one = values.types[prototype]
    named = values.types.parameters(one)
    is_variadic = bool(named) and named[-1][1] == Kind.VOID
    parameters = tuple(
        Parameter(name or f"arg{index}", values[number], number)
        for index, (name, number) in enumerate(named[:-1] if is_variadic else named)
    )
    result = values[one.of] if values.types.plain(one.of)[1].kind else None
    return Signature(parameters, result, is_variadic, one.of, module, number=prototype)


def _same(found: Sequence[Signature]) -> Signature:
    """What functions of one name have in common. Raises NoTypesError if their types differ.

    In Debian's 6.1 only names differ for 437 of 508, most of them system calls: the kernel has a
    second function of that name, which returns -ENOSYS and calls its argument __unused.
    """
    first = found[0]._replace(number=0)
    for other in found:
        unnamed = other._replace(
            number=0,
            parameters=tuple(
                mine._replace(name=own.name)
                for mine, own in zip(other.parameters, first.parameters, strict=False)
            ),
        )
        if unnamed != first or len(other.parameters) != len(first.parameters):
            raise NoTypesError("several functions of this name have different prototypes")
    parameters = []
    for index, same in enumerate(zip(*(one.parameters for one in found), strict=True)):
        names = {one.name for one in same} - {_UNUSED}
        name = names.pop() if len(names) == 1 else f"arg{index}"
        parameters.append(same[0]._replace(name=name))
    return first._replace(parameters=tuple(parameters))
