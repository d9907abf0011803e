# SPDX-License-Identifier: Apache-2.0
"""Resolves entries of a function list to probe targets, or to the reasons why there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from batchprobe._util.counted import counted
from batchprobe.funclist.spec import CORE, Kind, ProbeSpec
from batchprobe.functions.table import Function, FunctionTable
from batchprobe.functions.targets import Reason, Resolution, Skipped, Target
from batchprobe.functions.unmatched import Unmatched

__all__ = ["resolve"]

_CHECKED_TOGETHER = 1000
_SYSCALL_STARTS = ("__", "sys_", "SyS_", "compat_")


def resolve(
    specs: Sequence[ProbeSpec],
    table: FunctionTable,
    *,
    syscall_prefixes: Sequence[str],
    check: Callable[[], None] = lambda: None,
) -> Resolution:
    """Look up all entries; exclusions apply to the whole list, whatever the order. `check` is
    called now and then, and may raise to cancel.

    `syscall_prefixes` are what the architecture may put before a system call's name to form its
    function's name, most likely first: `("__x64_sys_", "sys_")`.

    Patterns omit functions that ftrace cannot trace. Such a function becomes a target if requested
    by name: kprobes may work where ftrace does not, and only the kernel can tell.
    """
    resolver = _Resolver(specs, table, syscall_prefixes, check)
    for spec in specs:
        check()
        if not spec.exclude:
            resolver.add(resolver.placed(spec))
    return Resolution(
        targets=_with_unique_labels(resolver.targets.values()),
        skipped=resolver.skipped,
        omitted=Counter(resolver.omitted.values()),
    )


def _checked(specs: Sequence[ProbeSpec], check: Callable[[], None]) -> Iterator[ProbeSpec]:
    for at, spec in enumerate(specs):
        if not at % _CHECKED_TOGETHER:
            check()
        yield spec


class _Resolver:
    """The state of one call of `resolve`."""

    def __init__(
        self,
        specs: Sequence[ProbeSpec],
        table: FunctionTable,
        syscall_prefixes: Sequence[str],
        check: Callable[[], None],
    ) -> None:
        # By site: (address, or module, name and offset if pending; is_return).
        self.targets: dict[tuple[object, bool], Target] = {}
        self.skipped: list[Skipped] = []
        # By address, so that a function counts once even if two patterns match it.
        self.omitted: dict[int, Reason] = {}
        self._table = table
        self._prefixes = syscall_prefixes
        self._unmatched = Unmatched(table, syscall_prefixes, check)
        self._named = table.find(
            name
            for spec in _checked(specs, check)
            if spec.kind is Kind.NAME
            for name in self._spellings(spec)
        )
        self._excludes = [self.placed(spec) for spec in specs if spec.exclude]
        # By address, because a function excluded under one of its names is excluded under all.
        self._excluded: dict[int, ProbeSpec] = {}
        for spec in self._excludes:
            for function in self._functions(spec) or self._functions_of_syscall(spec):
                self._excluded.setdefault(function.address, spec)

    def placed(self, spec: ProbeSpec) -> ProbeSpec:
        """The entry, in the core kernel if it is a name in a module that is built into that. A
        pattern would mean the whole kernel there.
        """
        if (
            spec.kind is not Kind.NAME
            or spec.module in (None, CORE)
            or spec.module in self._table.modules
        ):
            return spec
        installed = self._table.installed
        if installed is None or spec.module not in installed.builtin:
            return spec
        return spec.with_changes(module=CORE)

    def add(self, spec: ProbeSpec) -> None:
        """Add the targets and skips of one entry."""
        if spec.kind is Kind.OTHER:
            self._skip(spec, Reason.NOT_A_FUNCTION, spec.name)
        elif spec.kind is Kind.ADDRESS:
            self._add_address(spec)
        elif functions := self._functions(spec):
            self._add_functions(spec, functions)
        else:
            self._add_unmatched(spec)

    def _spellings(self, spec: ProbeSpec) -> list[str]:
        """Return the function names that an entry's name may mean, most likely first."""
        if spec.syscall:
            return [prefix + spec.name for prefix in self._prefixes]
        call = _syscall_of(spec)
        return [spec.name, *(prefix + call for prefix in self._prefixes if call)]

    def _functions(self, spec: ProbeSpec) -> list[Function]:
        """Return all functions that a name or pattern means."""
        if spec.kind is Kind.NAME:
            functions = self._functions_named(spec)
            return [f for f in functions if f.address == spec.hint] or functions
        match = spec.matcher()
        if spec.syscall:
            for prefix in self._prefixes:
                calls = self._table.syscalls(prefix)
                if matched := [f for f in calls if match(f.name.removeprefix(prefix))]:
                    return matched
            return []
        if spec.module is None:
            return self._table.matching(match, containing=spec.fixed_part)
        return self._table.matching(match, modules=self._modules(spec), containing=spec.fixed_part)

    def _functions_named(self, spec: ProbeSpec) -> list[Function]:
        # The most common form, a plain name, covers all modules.
        if spec.module is None and not spec.syscall:
            return self._named.get(spec.name) or self._table.clones(spec.name)
        for name in self._spellings(spec) if spec.syscall else [spec.name]:
            for find in (self._named.get, self._table.clones):
                found = find(name) or ()
                if covered := [f for f in found if self._covers(spec, f.module)]:
                    return covered
        return []

    def _covers(self, spec: ProbeSpec, module: str) -> bool:
        return module == "" if spec.syscall else spec.in_module(module)

    def _modules(self, spec: ProbeSpec) -> set[str]:
        """Return the loaded modules (`""` is the core kernel) that an entry covers."""
        return {module for module in ("", *self._table.modules) if spec.in_module(module)}

    def _add_functions(self, spec: ProbeSpec, functions: Sequence[Function]) -> None:
        # By address, because a function may have several names.
        refused: dict[tuple[Reason, str], dict[int, Function]] = {}
        any_target = False
        for function in functions:
            if refusal := self._refusal(spec, function):
                refused.setdefault(refusal, {})[function.address] = function
            else:
                self._add_target(spec, function, spec.offset)
                any_target = True
        if not refused:
            return
        if spec.is_pattern:
            for (reason, _), those in refused.items():
                self.omitted.update(dict.fromkeys(those, reason))
            if not any_target:
                self._skip_pattern(spec, {refusal: len(f) for refusal, f in refused.items()})
            return
        for (reason, detail), those in refused.items():
            # Excluding one of several functions of a name is intended, and no reason to report it.
            if any_target and reason is Reason.EXCLUDED:
                continue
            labels = [f"{function.name}@{address:#x}" for address, function in those.items()]
            self._skip(spec, reason, detail, ", ".join(labels) if len(functions) > 1 else "")

    def _refusal(self, spec: ProbeSpec, function: Function) -> tuple[Reason, str] | None:
        """Return why an existing function gets no probe; None if it gets one."""
        address, size, offset = function.address, function.size, spec.offset
        if by := self._excluded.get(address):
            return Reason.EXCLUDED, _excluded_by(by)
        if size and offset >= size:
            return (
                Reason.BAD_OFFSET,
                f"+{offset:#x} is outside {function.name}, which has {size:#x} bytes",
            )
        if self._table.is_blacklisted(address + offset):
            return Reason.BLACKLISTED, "see /sys/kernel/debug/kprobes/blacklist"
        if not function.module and self._table.is_init(address):
            return Reason.INIT, "an __init function, no longer in memory"
        if spec.is_pattern and self._table.is_traceable(function) is False:
            return Reason.NOTRACE, ""
        return None

    def _add_address(self, spec: ProbeSpec) -> None:
        address = spec.address or 0
        found = self._table.function_at(address)
        if found is None:
            self._skip(spec, Reason.UNKNOWN, f"no function contains {address:#x}")
            return
        function, offset = found
        if spec.is_return and offset:
            detail = f"%return needs the start of a function, not {function.name}+{offset:#x}"
            self._skip(spec, Reason.BAD_OFFSET, detail)
        elif refusal := self._refusal(spec.with_changes(offset=offset), function):
            self._skip(spec, *refusal)
        else:
            self._add_target(spec, function, offset)

    def _add_target(self, spec: ProbeSpec, function: Function, offset: int) -> None:
        site = (function.address + offset, spec.is_return)
        if site not in self.targets:
            self.targets[site] = Target(self._label(spec, function, offset), spec, function, offset)

    def _label(self, spec: ProbeSpec, function: Function, offset: int) -> str:
        if spec.syscall:
            prefix = next(p for p in self._prefixes if function.name.startswith(p))
            label = f"syscall:{function.name.removeprefix(prefix)}"
        elif function.module:
            label = f"{function.module}:{function.name}"
        else:
            label = function.name
        if offset:
            label += f"+{offset:#x}"
        return label + "%return" if spec.is_return else label

    def _add_unmatched(self, spec: ProbeSpec) -> None:
        """Add what a name means that is no function now, or explain why it means nothing."""
        if self._may_load(spec):
            self._add_pending(spec)
        elif not self._add_syscall(spec):
            self._skip(spec, *self._unmatched.explain(spec))

    def _may_load(self, spec: ProbeSpec) -> bool:
        """Report whether the module of a name may be loaded later."""
        module, installed = spec.module, self._table.installed
        if spec.kind is not Kind.NAME or module is None or self._modules(spec):
            return False
        if installed is not None:
            return module in installed.loadable
        # Tools write the events of a subsystem like the functions of a module.
        return module.replace("_", "").isalnum() and not self._unmatched.tracepoint(spec.name)

    def _add_pending(self, spec: ProbeSpec) -> None:
        module = spec.module or ""
        if by := next((e for e in self._excludes if _excludes(e, module, spec.name)), None):
            self._skip(spec, Reason.EXCLUDED, _excluded_by(by))
        else:
            site = ((module, spec.name, spec.offset), spec.is_return)
            self.targets.setdefault(site, Target(str(spec), spec, None, spec.offset))

    def _add_syscall(self, spec: ProbeSpec) -> bool:
        """Add the system call that a name such as sys_clone means; report whether it means one."""
        functions = self._functions_of_syscall(spec)
        if functions:
            meant = spec.with_changes(name=_syscall_of(spec), module=None, syscall=True)
            self._add_functions(meant, functions)
        return bool(functions)

    def _functions_of_syscall(self, spec: ProbeSpec) -> list[Function]:
        """The functions of the system call that a name means; none if it means no call."""
        call = _syscall_of(spec) if spec.kind is Kind.NAME else ""
        if not call or spec.module not in (None, CORE):
            return []
        return self._functions_named(spec.with_changes(name=call, module=None, syscall=True))

    def _skip_pattern(self, spec: ProbeSpec, refused: dict[tuple[Reason, str], int]) -> None:
        """Skip a pattern whose functions are all refused."""
        counts: Counter[Reason] = Counter()
        for (reason, _), count in refused.items():
            counts[reason] += count
        if list(counts) == [Reason.EXCLUDED]:
            details = ", ".join(detail for _, detail in refused)
            matches = counted(counts.total(), "match", "matches")
            self._skip(spec, Reason.EXCLUDED, f"all {matches}, {details}")
            return
        listed = ", ".join(f"{count} {reason.value}" for reason, count in counts.items())
        self._skip(spec, Reason.NO_MATCH, f"no matching function can be probed: {listed}")

    def _skip(self, spec: ProbeSpec, reason: Reason, detail: str, function: str = "") -> None:
        self.skipped.append(Skipped(spec.text, spec.source, reason, detail, function))


def _syscall_of(spec: ProbeSpec) -> str:
    """The system call that a function of this name belongs to on a kernel of another age or
    architecture; empty if it belongs to none.
    """
    if spec.syscall or not spec.name.startswith(_SYSCALL_STARTS):
        return ""
    # Its regexes cost a start some milliseconds, and few names begin so.
    from batchprobe.funclist.foreign import syscall_of  # noqa: PLC0415

    return syscall_of(spec.name)


def _excludes(exclude: ProbeSpec, module: str, name: str) -> bool:
    """Report whether an exclusion covers a function of a module that is not loaded."""
    if exclude.syscall or not exclude.in_module(module):
        return False
    return bool(exclude.matcher()(name)) if exclude.is_pattern else exclude.name == name


def _excluded_by(exclude: ProbeSpec) -> str:
    return f"by {exclude.text} ({exclude.source})"


def _with_unique_labels(targets: Iterable[Target]) -> list[Target]:
    """Append the address to labels that several targets share."""
    targets = list(targets)
    counts = Counter(target.label for target in targets)
    if len(counts) == len(targets):
        return targets
    return [
        target
        if counts[target.label] == 1 or target.address is None
        else Target(
            f"{target.label}@{target.address:#x}", target.spec, target.function, target.offset
        )
        for target in targets
    ]
