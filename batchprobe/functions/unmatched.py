# SPDX-License-Identifier: Apache-2.0
"""Why a name or a pattern means no function: what to tell the user, who may have to act on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from batchprobe.funclist.spec import CORE, Kind, ProbeSpec
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Reason

__all__ = ["Unmatched"]

# Searching for similar names takes longer than all the rest. This bounds the time for a list made
# for another kernel.
_MAX_SUGGESTIONS = 10
# A kernel has some 200,000 symbols.
_LINES_TOGETHER = 10_000
_TRACEPOINT = "a tracepoint"


class Unmatched:
    """Explains the entries of one list that mean nothing. `check` may raise to cancel."""

    def __init__(
        self,
        table: FunctionTable,
        syscall_prefixes: Sequence[str],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._table = table
        self._check = check
        self._prefixes = syscall_prefixes
        self._suggestions = 0

    def explain(self, spec: ProbeSpec) -> tuple[Reason, str]:
        """The reason and the detail."""
        if spec.kind is Kind.NAME and not spec.syscall and (said := self.tracepoint(spec.name)):
            return Reason.NOT_A_FUNCTION, said
        if spec.module is not None and not self._is_loaded(spec):
            return Reason.MODULE_NOT_LOADED, self._unloaded(spec, spec.module)
        if spec.is_pattern:
            where = f" in {spec.module}" if spec.module else "; is its module loaded?"
            return Reason.NO_MATCH, "no function has a matching name" + where
        return self._unknown(spec)

    def _unknown(self, spec: ProbeSpec) -> tuple[Reason, str]:
        if spec.syscall:
            detail = "this kernel has no such system call on this architecture"
            return Reason.UNKNOWN, detail + self._suggest_syscall(spec.name)
        if elsewhere := self._table.find([spec.name]).get(spec.name):
            where = ", ".join(sorted({function.module or CORE for function in elsewhere}))
            return Reason.UNKNOWN, f"{spec.name} is not in {spec.module}, but in {where}"
        if self.has_symbol(spec.name):
            return Reason.NOT_A_FUNCTION, f"{spec.name} is data, padding or part of a function"
        detail = "inlined by the compiler, or not in this kernel"
        return Reason.UNKNOWN, detail + self._suggest(spec.name)

    def has_symbol(self, name: str) -> bool:
        """Report whether any symbol has this name, data and padding too."""
        return name in self._symbols

    @cached_property
    def _symbols(self) -> frozenset[str]:
        # A set, because a list for another kernel asks for thousands.
        lines = self._table.kallsyms.splitlines()
        names: set[str] = set()
        for at in range(0, len(lines), _LINES_TOGETHER):
            self._check()
            some = lines[at : at + _LINES_TOGETHER]
            names.update(line.split(None, 3)[2] for line in some if line)
        return frozenset(names)

    def _is_loaded(self, spec: ProbeSpec) -> bool:
        return any(spec.in_module(module) for module in ("", *self._table.modules))

    def tracepoint(self, name: str) -> str:
        """Say so if the name is that of a tracepoint; empty if not."""
        for prefix, suffix in (("sys_enter_", ""), ("sys_exit_", "%return")):
            if name.startswith(prefix):
                return f"{_TRACEPOINT}: write syscall:{name.removeprefix(prefix)}{suffix}"
        return _TRACEPOINT if self._table.is_tracepoint(name) else ""

    def _unloaded(self, spec: ProbeSpec, module: str) -> str:
        if not module.replace("_", "").isalnum():
            return f"no loaded module matches {module}"
        installed = self._table.installed
        if installed is not None and module in installed.builtin:
            return f"{module} is built in, and so part of the core kernel: omit the module"
        if installed is not None and module not in installed.loadable:
            return f"no module {module} is installed for this kernel" + self._suggest_module(module)
        # A name would wait for its module.
        return f"run modprobe {module} first, or omit the module if it is built in"

    def _suggest(self, name: str) -> str:
        """Similar names, as the end of a sentence; empty if there are none."""
        if self._table.find(prefix + name for prefix in self._prefixes):
            return f"; the system call is syscall:{name}"
        return self._similar(name, lambda: sorted(self._table.similar(name)))

    def _suggest_syscall(self, name: str) -> str:
        def calls() -> list[str]:
            return [
                function.name.removeprefix(prefix)
                for prefix in self._prefixes
                for function in self._table.syscalls(prefix)
            ]

        return self._similar(name, calls)

    def _suggest_module(self, name: str) -> str:
        installed = self._table.installed
        known = installed.loadable if installed else frozenset()
        return self._similar(name, lambda: sorted(known | self._table.modules))

    def _similar(self, name: str, among: Callable[[], Iterable[str]]) -> str:
        if self._suggestions >= _MAX_SUGGESTIONS:
            return ""
        self._suggestions += 1
        # Imported here because only misspelled names need it; it costs a start 0.5 ms.
        import difflib  # noqa: PLC0415

        names = difflib.get_close_matches(name, among(), n=3, cutoff=0.75)
        return f"; similar names: {', '.join(names)}" if names else ""
