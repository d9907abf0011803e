# SPDX-License-Identifier: Apache-2.0
"""The programs of an action with its filters: shipped as bytecode, or compiled with bcc."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from batchprobe.actions.base import Action
from batchprobe.arch import Arch
from batchprobe.filters.base import Filter, ProbeKind
from batchprobe.programs.program import Program
from batchprobe.programs.shipped import shipped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from batchprobe.programs.compiler import Compiler
    from batchprobe.programs.source import ProgramSource

__all__ = [
    "SHIPPED",
    "SHIPPED_FILTER",
    "ProgramLoader",
    "Progress",
    "check_names",
    "required_kind",
    "section_of",
    "source_of",
]

SHIPPED = (
    *("count.Count", "user_program.UserPrograms", "latency.Latency"),
    *("events.Events", "events.CallEvents", "errors.Errors"),
    *("stacks.Stacks", "stacks.CallTimeStacks"),
)
"""The actions that scripts/build-programs compiles ahead: module and class."""
SHIPPED_FILTER = "scope.Scope"
"""The filter with which it compiles each of them a second time."""

Progress = Callable[[str, int, int], None]
"""Called with a stage ("resolve", "compile", "attach", "reclaim"), the work done, and all work."""
_POLL_SECONDS = 0.1


def required_kind(action: Action, filters: Sequence[Filter]) -> ProbeKind:
    """The kind of probe that these need. Raises ValueError if they need different ones."""
    everything: list[Action | Filter] = [action, *filters]
    needed = {one.kind: one.name for one in everything if one.kind is not ProbeKind.AS_LISTED}
    if len(needed) > 1:
        words = " and ".join(f"{name} needs {kind.value} probes" for kind, name in needed.items())
        raise ValueError(f"these do not go together: {words}")
    return next(iter(needed), ProbeKind.AS_LISTED)


def check_names(action: Action, filters: Sequence[Filter]) -> None:
    """Raise ValueError if two filters, or two constants, have one name: C would mix them up."""
    constants = _constants(action, filters)
    for names in ([one.name for one in filters], constants):
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"two filters or constants have the name {', '.join(repeated)}")


def source_of(arch: Arch, action: Action, filters: Sequence[Filter] = ()) -> ProgramSource:
    """The C text of an action with its filters."""
    from batchprobe.programs.source import compose  # noqa: PLC0415  (only to compile)

    return compose(
        arch,
        action=action.source,
        filters={one.name: one.source for one in filters},
        constants=_constants(action, filters),
        at_return=action.constants_at_return(),
        has_returns=action.kind is ProbeKind.CALL,
    )


def _constants(action: Action, filters: Sequence[Filter]) -> list[str]:
    everything: list[Action | Filter] = [action, *filters]
    return [name for one in everything for name in one.constants()]


def section_of(action: Action, filters: Sequence[Filter]) -> str:
    """The name of the programs among the shipped ones; empty if they are not shipped."""
    # By name: a start imports the action that it runs, and no other.
    if _name(action, "actions") not in SHIPPED:
        return ""
    if not filters:
        return action.name
    only_scope = [_name(one, "filters") for one in filters] == [SHIPPED_FILTER]
    return f"{action.name}+{filters[0].name}" if only_scope else ""


def _name(one: Action | Filter, package: str) -> str:
    kind = type(one)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(f"batchprobe.{package}.")


class ProgramLoader:
    """Finds the programs when it is created, or starts to compile them in a child process.

    Raises UnsupportedError where they must be compiled and cannot be.
    """

    def __init__(self, arch: Arch, action: Action, filters: Sequence[Filter]) -> None:
        self._programs: dict[str, Program] | None = None
        self._compiler: Compiler | None = None
        if section := section_of(action, filters):
            self._programs = shipped(arch, section, lambda: source_of(arch, action, filters).text)
        if self._programs is None:
            from batchprobe.programs.compiler import Compiler  # noqa: PLC0415  (rarely needed)

            self._compiler = Compiler(source_of(arch, action, filters))

    def get(self, check: Callable[[], None], progress: Progress) -> dict[str, Program]:
        """The programs by name; waits for the compiler if need be. `check` raises to cancel."""
        if self._compiler is None:
            return self._programs or {}
        progress("compile", 0, 1)
        while (programs := self._compiler.wait(_POLL_SECONDS)) is None:
            check()
        progress("compile", 1, 1)
        return programs

    def close(self) -> None:
        """End the compiler if it still runs."""
        if self._compiler is not None:
            self._compiler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
