# SPDX-License-Identifier: Apache-2.0
"""The result of resolving a function list: probe targets, and entries skipped with reasons."""

from __future__ import annotations

from enum import Enum

from batchprobe.funclist.spec import ProbeSpec, Source
from batchprobe.functions.table import Function

__all__ = ["Reason", "Resolution", "Skipped", "Target"]


class Reason(Enum):
    """Why an entry or a function gets no probe; the value is shown to users."""

    UNKNOWN = "unknown function"
    NO_MATCH = "no match"
    NOT_A_FUNCTION = "not a function"
    MODULE_NOT_LOADED = "module not loaded"
    EXCLUDED = "excluded"
    BLACKLISTED = "blacklisted by the kernel"
    NOTRACE = "not traceable"
    INIT = "freed after boot"
    AMBIGUOUS = "ambiguous name"
    BAD_OFFSET = "bad offset"
    NOT_AN_INSTRUCTION = "not an instruction boundary"
    REFUSED = "refused by the kernel"
    UNSUPPORTED = "not supported here"
    LACKS = "without what is asked for"


class Skipped:
    """An entry, or a function an entry means, that gets no probe.

    `detail` is what the user needs to know to act on it, in one clause; it may be empty. `function`
    is the label of the function, where the entry's text does not say which one.
    """

    def __init__(
        self, entry: str, source: Source, reason: Reason, detail: str, function: str = ""
    ) -> None:
        self.entry = entry
        self.source = source
        self.reason = reason
        self.detail = detail
        self.function = function

    @property
    def message(self) -> str:
        """The reason and the detail."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value

    def __str__(self) -> str:
        what = f"{self.entry}: {self.function}" if self.function else self.entry
        return f"{self.source}: {what}: {self.message}"


class Target:
    """A site to probe: an offset in a function, or a function's return."""

    __slots__ = ("function", "label", "offset", "spec")

    def __init__(
        self, label: str, spec: ProbeSpec, function: Function | None, offset: int = 0
    ) -> None:
        self.label = label
        """Unique within a Resolution; for a `syscall:` entry, the same on every architecture."""
        self.spec = spec
        """The first entry that means this site."""
        self.function = function
        """None if its module is not loaded."""
        self.offset = offset
        """Offset from the function's start, in bytes."""

    @property
    def name(self) -> str:
        """The function's symbol name."""
        return self.function.name if self.function else self.spec.name

    @property
    def module(self) -> str:
        """The function's module; empty for the core kernel."""
        return self.function.module if self.function else self.spec.module or ""

    @property
    def is_return(self) -> bool:
        """Whether the probe fires when the function returns."""
        return self.spec.is_return

    @property
    def address(self) -> int | None:
        """The address to probe; None if pending."""
        return self.function.address + self.offset if self.function else None

    @property
    def pending(self) -> bool:
        """Whether the function's module is not loaded yet."""
        return self.function is None


class Resolution:
    """The targets and skips of a function list on this kernel."""

    def __init__(
        self, targets: list[Target], skipped: list[Skipped], omitted: dict[Reason, int]
    ) -> None:
        self.targets = targets
        """In list order, functions of a pattern by address; no site twice."""
        self.skipped = skipped
        self.omitted = omitted
        """Number of functions, by reason, that patterns matched and that get no probe; these are
        not skips.
        """
