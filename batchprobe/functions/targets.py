"""What a function list comes to on the running kernel: places to probe, and reasons why not."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from batchprobe.funclist.spec import ProbeSpec, Source
    from batchprobe.functions.table import Function

__all__ = ["Reason", "Resolution", "Skipped", "Target"]


class Reason(Enum):
    """Why there is no probe; the value is what people read."""

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


class Skipped(NamedTuple):
    """An entry, or one function of an entry, that got no probe."""

    entry: str
    source: Source
    reason: Reason
    detail: str
    """One clause a person can act on."""

    @property
    def message(self) -> str:
        """Reason and detail."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value

    def __str__(self) -> str:
        return f"{self.source}: {self.entry}: {self.message}"


class Target(NamedTuple):
    """One place to probe."""

    label: str
    """Unique in a Resolution, and alike on every architecture for a `syscall:` entry."""
    spec: ProbeSpec
    """The first entry that asked for this place."""
    function: Function | None
    """None while the module that should have it is not loaded."""
    offset: int = 0
    """Bytes behind the function's start."""

    @property
    def name(self) -> str:
        """The function's name in the kernel."""
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
        """Where the probe goes; None if pending."""
        return self.function.address + self.offset if self.function else None

    @property
    def pending(self) -> bool:
        """Whether the probe waits for its module to be loaded."""
        return self.function is None


class Resolution(NamedTuple):
    """What a list comes to on this kernel."""

    targets: list[Target]
    """In the order of the list, a pattern's functions by address; no place twice."""
    skipped: list[Skipped]
    left_out: dict[Reason, int]
    """How many functions patterns matched and left out, for a reason; these are no skips."""
