# SPDX-License-Identifier: Apache-2.0
"""The session that carries bcc's kprobes, and looks up their functions as the kernel does."""

from __future__ import annotations

from batchprobe.attach.trial import Trial
from batchprobe.bcc.kprobe import Kprobe
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.functions.table import Function, FunctionTable
from batchprobe.session import Session

__all__ = ["ToolSession"]


class ToolSession(Session):
    """A session that can also report whether the kernel accepts a kprobe on a function."""

    _table: FunctionTable | None = None
    _trial: Trial | None = None
    _has_tracefs = True

    def locate(self, kprobe: Kprobe) -> int:
        """The address of the kprobe; 0 if the kernel refuses it.

        The name is looked up as the kernel does: exactly, the first of several functions before
        Linux 6.6, none of them since then. A function that ftrace lists is accepted without asking
        the kernel, because asking for all of them takes longer than attaching them.
        """
        if self._table is None:
            self._table = self._attacher.symbols.table()
        table = self._table
        functions = _named(table, kprobe.function)
        if not functions:
            return 0
        first = functions[0]
        # Others may be at the same address, under the same name.
        is_plain = len({function.address for function in functions}) == 1
        if not (is_plain and not kprobe.offset and _is_plain(table, first)):
            accepted = self._ask(kprobe)
            if not (is_plain if accepted is None else accepted):
                return 0
        return first.address + kprobe.offset

    def _ask(self, kprobe: Kprobe) -> bool | None:
        """The kernel's answer; None where it cannot be asked."""
        if self._trial is None and self._has_tracefs:
            try:
                self._trial = Trial(self._owner.group, self._guard.arm)
            except UnsupportedError:
                self._has_tracefs = False
        if self._trial is None:
            return None
        return self._trial.takes(kprobe.function, kprobe.offset, is_return=kprobe.is_return)

    def end_trial(self) -> KernelError | None:
        """Remove what `locate` left in the kernel, and look at the kernel's functions anew the next
        time; returns the error of a removal, which is tried again by `batchprobe cleanup`.
        """
        self._table = None
        trial, self._trial = self._trial, None
        if trial is not None:
            with self._barrier.expedited_grace_periods():
                try:
                    trial.close()
                except KernelError as error:
                    return error
        return None


def _named(table: FunctionTable, name: str) -> list[Function]:
    """The functions of exactly this name, which may have a module in front: by address, those of
    the core kernel first.
    """
    module, colon, alone = name.rpartition(":")
    functions = table.find([alone]).get(alone, [])
    if colon:
        functions = [one for one in functions if one.module == module]
    return sorted(functions, key=lambda one: bool(one.module))


def _is_plain(table: FunctionTable, function: Function) -> bool:
    """Whether the kernel surely takes a kprobe at the entry of this function."""
    return (
        table.is_traceable(function) is True
        and not table.is_blacklisted(function.address)
        and not (not function.module and table.is_init(function.address))
    )
