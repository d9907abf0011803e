"""From the entries of a list to places in the running kernel, or to the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from batchprobe.funclist.spec import CORE, Kind
from batchprobe.functions.targets import Reason, Resolution, Skipped, Target

if TYPE_CHECKING:
    from batchprobe.funclist.spec import ProbeSpec
    from batchprobe.functions.table import Function, FunctionTable

__all__ = ["resolve"]

# Looking for names alike takes longer than all the rest: a list for another kernel gets this many.
_MOST_SUGGESTIONS = 10


def resolve(
    specs: Sequence[ProbeSpec], table: FunctionTable, *, syscall_prefixes: Sequence[str]
) -> Resolution:
    """Look up every entry; what the list excludes is left out whatever the order.

    `syscall_prefixes` are what the architecture puts before a system call's name to make its
    function's, the likeliest first: `("__x64_sys_", "sys_")`.

    A function ftrace cannot trace is left out of patterns only. Asked for by name it becomes a
    target: a kprobe may work where ftrace does not, and the kernel has the last word.
    """
    resolver = _Resolver(specs, table, syscall_prefixes)
    for spec in specs:
        if not spec.exclude:
            resolver.add(spec)
    return Resolution(
        targets=_with_unique_labels(resolver.targets.values()),
        skipped=resolver.skipped,
        left_out=Counter(resolver.left_out.values()),
    )


class _Resolver:
    """One run of `resolve`: what was found so far."""

    def __init__(
        self, specs: Sequence[ProbeSpec], table: FunctionTable, syscall_prefixes: Sequence[str]
    ) -> None:
        # keyed by place: address (or module and name) with the kind of probe
        self.targets: dict[tuple[object, bool], Target] = {}
        self.skipped: list[Skipped] = []
        # by address, so that two patterns count a function once
        self.left_out: dict[int, Reason] = {}
        self._table = table
        self._prefixes = syscall_prefixes
        self._suggestions = 0
        self._named = table.find(
            name for spec in specs if spec.kind is Kind.NAME for name in self._spellings(spec)
        )
        self._excludes = [spec for spec in specs if spec.exclude]
        # by address: a function excluded under one name is not wanted under another either
        self._excluded: dict[int, ProbeSpec] = {}
        for spec in self._excludes:
            for function in self._functions(spec):
                self._excluded.setdefault(function.address, spec)

    def add(self, spec: ProbeSpec) -> None:
        """Turn one entry into targets, or into skips."""
        if spec.kind is Kind.ADDRESS:
            self._add_address(spec)
        elif functions := self._functions(spec):
            self._add_functions(spec, functions)
        else:
            self._add_nothing(spec)

    def _spellings(self, spec: ProbeSpec) -> list[str]:
        """The function names a name may stand for, the likeliest first."""
        return [prefix + spec.name for prefix in self._prefixes] if spec.syscall else [spec.name]

    def _functions(self, spec: ProbeSpec) -> list[Function]:
        """All functions a name or pattern means."""
        if spec.kind is Kind.NAME:
            return self._functions_named(spec)
        match = spec.matcher()
        if spec.syscall:
            for prefix in self._prefixes:
                calls = self._syscalls(prefix)
                if matched := [f for f in calls if match(f.name.removeprefix(prefix))]:
                    return matched
            return []
        if spec.module is None:
            return self._table.matching(match, part=spec.fixed_part)
        return self._table.matching(match, modules=self._modules(spec), part=spec.fixed_part)

    def _functions_named(self, spec: ProbeSpec) -> list[Function]:
        # Most are names alone, and reach everywhere.
        if spec.module is None and not spec.syscall:
            return self._named.get(spec.name) or self._table.clones(spec.name)
        for name in self._spellings(spec):
            for functions in (self._named.get, self._table.clones):
                found = functions(name) or ()
                if inside := [f for f in found if self._reaches(spec, f.module)]:
                    return inside
        return []

    def _syscalls(self, prefix: str) -> list[Function]:
        return self._table.matching(lambda name: name.startswith(prefix), modules={""})

    def _reaches(self, spec: ProbeSpec, module: str) -> bool:
        return module == "" if spec.syscall else spec.in_module(module)

    def _modules(self, spec: ProbeSpec) -> set[str]:
        """The loaded modules (`""`: the core kernel) an entry reaches into."""
        return {module for module in ("", *self._table.modules) if spec.in_module(module)}

    def _add_functions(self, spec: ProbeSpec, functions: Iterable[Function]) -> None:
        refused: dict[int, tuple[Reason, str]] = {}
        placed = False
        for function in functions:
            if refusal := self._refusal(spec, function):
                refused[function.address] = refusal
            else:
                self._place(spec, function, spec.offset)
                placed = True
        if not refused:
            return
        if spec.is_pattern:
            self.left_out.update((address, why) for address, (why, _) in refused.items())
            if not placed:
                self._skip_pattern(spec, list(refused.values()))
            return
        for reason, detail in dict.fromkeys(refused.values()):
            # Leaving one namesake out on purpose is no failure of the others.
            if not (placed and reason is Reason.EXCLUDED):
                self._skip(spec, reason, detail)

    def _refusal(self, spec: ProbeSpec, function: Function) -> tuple[Reason, str] | None:
        """Why a function that exists gets no probe."""
        _, module, address, size = function
        offset = spec.offset
        if by := self._excluded.get(address):
            return Reason.EXCLUDED, f"{by.source} says {by.text}"
        if size and offset >= size:
            return (
                Reason.BAD_OFFSET,
                f"+{offset:#x} is outside {function.name}, which has {size:#x} bytes",
            )
        if self._table.is_blacklisted(address + offset):
            return Reason.BLACKLISTED, "probes are forbidden there (debugfs, kprobes/blacklist)"
        if not module and self._table.is_init(address):
            return Reason.INIT, "an __init function, no longer in memory"
        if spec.is_pattern and self._table.is_traceable(function) is False:
            return Reason.NOTRACE, ""
        return None

    def _add_address(self, spec: ProbeSpec) -> None:
        address = spec.address or 0
        found = self._table.function_at(address)
        if found is None:
            self._skip(spec, Reason.UNKNOWN, f"no function lies at {address:#x}")
            return
        function, offset = found
        if spec.is_return and offset:
            detail = f"{function.name}+{offset:#x} is not where a function starts, %return needs it"
            self._skip(spec, Reason.BAD_OFFSET, detail)
        elif refusal := self._refusal(spec._replace(offset=offset), function):
            self._skip(spec, *refusal)
        else:
            self._place(spec, function, offset)

    def _place(self, spec: ProbeSpec, function: Function, offset: int) -> None:
        place = (function.address + offset, spec.is_return)
        if place not in self.targets:
            self.targets[place] = Target(
                self._label(spec, function, offset), spec, function, offset
            )

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

    def _add_nothing(self, spec: ProbeSpec) -> None:
        """Say what is amiss with a name or pattern that means no function at all."""
        if spec.module is not None and not self._modules(spec):
            self._add_unloaded(spec, spec.module)
        elif spec.is_pattern:
            where = f" in {spec.module}" if spec.module else "; is its module loaded?"
            self._skip(spec, Reason.NO_MATCH, "no function has such a name" + where)
        elif elsewhere := self._named.get(spec.name):
            where = ", ".join(sorted({function.module or CORE for function in elsewhere}))
            detail = f"{spec.module} has no {spec.name}, but {where} has"
            self._skip(spec, Reason.UNKNOWN, detail)
        elif not spec.syscall and self._table.has_symbol(spec.name):
            detail = f"{spec.name} is data, padding or a part of a function"
            self._skip(spec, Reason.NOT_A_FUNCTION, detail)
        elif spec.syscall:
            detail = "no such system call on this architecture and kernel"
            self._skip(spec, Reason.UNKNOWN, detail + self._suggest(spec))
        else:
            detail = "inlined by the compiler or not part of this kernel"
            self._skip(spec, Reason.UNKNOWN, detail + self._suggest(spec))

    def _add_unloaded(self, spec: ProbeSpec, module: str) -> None:
        if not module.replace("_", "").isalnum():
            self._skip(spec, Reason.MODULE_NOT_LOADED, f"no loaded module's name is like {module}")
        elif spec.is_pattern:
            detail = f"modprobe {module} first, or write no module if it is built in"
            self._skip(spec, Reason.MODULE_NOT_LOADED, detail)
        elif by := next((e for e in self._excludes if _covers(e, module, spec.name)), None):
            self._skip(spec, Reason.EXCLUDED, f"{by.source} says {by.text}")
        else:
            place = ((module, spec.name, spec.offset), spec.is_return)
            self.targets.setdefault(place, Target(str(spec), spec, None, spec.offset))

    def _skip_pattern(self, spec: ProbeSpec, refused: list[tuple[Reason, str]]) -> None:
        """Skip a pattern all of whose functions are refused."""
        counts = Counter(reason for reason, _ in refused)
        if list(counts) == [Reason.EXCLUDED]:
            details = ", ".join(dict.fromkeys(detail for _, detail in refused))
            self._skip(spec, Reason.EXCLUDED, f"all {len(refused)} matches: {details}")
            return
        listed = ", ".join(f"{count} {reason.value}" for reason, count in counts.items())
        self._skip(spec, Reason.NO_MATCH, f"no function that can be probed: {listed}")

    def _suggest(self, spec: ProbeSpec) -> str:
        """Names like the one that is not there, as the end of a sentence; or nothing."""
        if self._suggestions == _MOST_SUGGESTIONS:
            return ""
        self._suggestions += 1
        among: Iterable[str]
        if spec.syscall:
            among = [f.name.removeprefix(p) for p in self._prefixes for f in self._syscalls(p)]
        else:
            among = sorted(self._table.similar(spec.name))
        import difflib  # noqa: PLC0415  (only for a name that is not there)

        names = difflib.get_close_matches(spec.name, among, n=3, cutoff=0.75)
        return f"; there is {', '.join(names)}" if names else ""

    def _skip(self, spec: ProbeSpec, reason: Reason, detail: str) -> None:
        self.skipped.append(Skipped(spec.text, spec.source, reason, detail))


def _covers(exclude: ProbeSpec, module: str, name: str) -> bool:
    """Whether an exclude means a function that is not there yet."""
    if exclude.syscall or not exclude.in_module(module):
        return False
    return bool(exclude.matcher()(name)) if exclude.is_pattern else exclude.name == name


def _with_unique_labels(targets: Iterable[Target]) -> list[Target]:
    """The targets; labels that several share get the address."""
    targets = list(targets)
    counts = Counter(target.label for target in targets)
    if len(counts) == len(targets):
        return targets
    return [
        target
        if counts[target.label] == 1 or target.address is None
        else target._replace(label=f"{target.label}@{target.address:#x}")
        for target in targets
    ]
