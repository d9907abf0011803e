# SPDX-License-Identifier: Apache-2.0
"""What an entry of a function list means.

One entry per line, or several with commas between them; `#` at the start of a line or after white
space starts a comment:

    vfs_read              every function of this name, in the core kernel and in all modules
    tcp_*  ext?_iget      a glob; also [abc], [a-z], [!a-z]
    /^tcp_(send|recv)/    a Python regex, searched for in the name as grep does
    ext4:ext4_sync_file   in one module; the module may be a glob, vmlinux is the core kernel
    vfs_read+0x1c         at this byte offset from the function's start, hexadecimal or decimal
    vfs_read%return       when the function returns; also allowed after patterns
    syscall:openat        the system call, whatever its function is called on this architecture
    0xffffffff81234567    a kernel address
    !tcp_v6_*             exclude these functions, wherever in the list this line is

Entries in the spelling of other tools are taken too: see `foreign`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CORE", "MAX_LINE", "Kind", "ProbeSpec", "Source"]

CORE = "vmlinux"
"""The module name that stands for the core kernel in a function list."""

MAX_LINE = 4096
"""Maximum length of a line, in characters. Kernel symbols have at most 511 (KSYM_NAME_LEN in
linux/kallsyms.h)."""


class Source:
    """Position of an entry: the file as the user named it, and the line number from 1."""

    __slots__ = ("file", "line")

    def __init__(self, file: str, line: int) -> None:
        self.file = file
        self.line = line

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and (self.file, self.line) == (other.file, other.line)

    def __hash__(self) -> int:
        return hash((self.file, self.line))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Kind(Enum):
    """How an entry denotes functions."""

    NAME = "name"
    GLOB = "glob"
    REGEX = "regex"
    ADDRESS = "address"
    OTHER = "other"
    """Not at all: a tracepoint, say, which other tools list beside functions. `name` says what it
    is."""


class ProbeSpec:
    """A parsed entry of a function list, not yet looked up in the kernel.

    `str()` returns its canonical spelling, which parses to an equal spec.
    """

    __slots__ = (
        "address",
        "exclude",
        "hint",
        "is_return",
        "kind",
        "module",
        "name",
        "offset",
        "source",
        "syscall",
        "text",
    )

    def __init__(
        self,
        text: str,
        source: Source,
        kind: Kind,
        name: str = "",
        *,
        module: str | None = None,
        syscall: bool = False,
        offset: int = 0,
        address: int | None = None,
        is_return: bool = False,
        exclude: bool = False,
        hint: int | None = None,
    ) -> None:
        self.text = text
        """The entry as written, without its comment."""
        self.source = source
        self.kind = kind
        self.name = name
        """The name, the glob, or the regex without its slashes; empty for an address."""
        self.module = module
        """A module name or glob, with `_` for `-`; `CORE` is the core kernel, None any module."""
        self.syscall = syscall
        """Whether `name` is that of a system call, without the architecture's prefix."""
        self.offset = offset
        """Offset from the function's start, in bytes."""
        self.address = address
        self.is_return = is_return
        self.exclude = exclude
        self.hint = hint
        """Where the function was when the entry was written. If one of several functions of the
        name is there, only this one is meant."""

    def with_changes(self, **changes: Any) -> ProbeSpec:
        """A copy in which these attributes have other values."""
        return ProbeSpec(**({name: getattr(self, name) for name in self.__slots__} | changes))

    def __eq__(self, other: object) -> bool:
        """Whether both mean the same, wherever and however they are written."""
        if not isinstance(other, ProbeSpec):
            return NotImplemented
        written = ("text", "source", "hint")
        return all(
            getattr(self, name) == getattr(other, name)
            for name in self.__slots__
            if name not in written
        )

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def is_pattern(self) -> bool:
        """Whether the entry may match any number of functions."""
        return self.kind in (Kind.GLOB, Kind.REGEX)

    def matcher(self) -> Callable[[str], object]:
        """Return a function whose result is true for names the pattern matches.

        A glob must match the whole name; a regex is searched for in it.
        """
        if self.kind is Kind.REGEX:
            import re  # noqa: PLC0415  (a list of names has no regexes)

            return re.compile(self.name).search
        return _glob_matcher(self.name)

    @property
    def fixed_part(self) -> str:
        """Text that every name matched by a glob contains; empty for other kinds.

        A leading newline means that the names start with this text.
        """
        if self.kind is not Kind.GLOB:
            return ""
        from batchprobe.funclist.globs import fixed_part  # noqa: PLC0415  (as below)

        return fixed_part(self.name)

    def in_module(self, module: str) -> bool:
        """Report whether the entry covers functions of `module` (`""` is the core kernel)."""
        return self.module is None or bool(_glob_matcher(self.module)(module or CORE))

    def __str__(self) -> str:
        prefix = "syscall:" if self.syscall else f"{self.module}:" if self.module else ""
        what = f"/{self.name}/" if self.kind is Kind.REGEX else self.name
        if self.address is not None:
            what = f"{self.address:#x}"
        offset = f"+{self.offset:#x}" if self.offset else ""
        return f"{'!' * self.exclude}{prefix}{what}{offset}{'%return' * self.is_return}"


def _glob_matcher(glob: str) -> Callable[[str], object]:
    from batchprobe.funclist.globs import matcher  # noqa: PLC0415  (a list of names has no globs)

    return matcher(glob)
