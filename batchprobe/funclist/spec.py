"""The function list: what an entry may say, and what is wrong with a line that says it badly.

Pure text. Whether the kernel has such a function is for `batchprobe.kernel.resolve` to say.

One entry a line; `#` at the start of a line or after white space begins a comment:

    vfs_read              a function, wherever it is (core kernel or modules, every namesake)
    tcp_*  ext?_iget      a glob; also [abc], [a-z], [!a-z]
    /^tcp_(send|recv)/    a Python regex, searched for in the name as grep does
    ext4:ext4_sync_file   in one module; the module may be a glob, vmlinux is the core kernel
    vfs_read+0x1c         so many bytes behind the function's start (decimal too)
    vfs_read%return       when the function returns; patterns may say this too
    syscall:openat        the system call, whatever this architecture names it
    0xffffffff81234567    a kernel address
    !tcp_v6_*             leave these out, wherever in the list this line stands
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from batchprobe.errors import SpecError

if TYPE_CHECKING:
    Matcher = Callable[[str], object]
    """Says by its truth whether a name matches."""

__all__ = ["CORE", "MAX_LINE", "Kind", "ProbeSpec", "Source", "parse_entry", "parse_list"]

CORE = "vmlinux"
"""What a list calls the core kernel where a module's name is expected."""

MAX_LINE = 4096
"""Characters in a line. The longest kernel symbol has 511 (KSYM_NAME_LEN in linux/kallsyms.h)."""

_LONGEST_PLAIN_NAME = 100


class Source(NamedTuple):
    """Where an entry stands: the file as the user named it, and the line from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Kind(Enum):
    """How an entry says which functions it means."""

    NAME = "name"
    GLOB = "glob"
    REGEX = "regex"
    ADDRESS = "address"


class ProbeSpec(NamedTuple):
    """One entry of a function list, understood but not yet looked up.

    `str()` gives the entry in its plainest spelling; parsing that gives the same spec, but for its
    `text`.
    """

    text: str
    """The entry as written, without comment."""
    source: Source
    kind: Kind
    name: str = ""
    """The name, the glob, or the regex without its slashes; empty for an address."""
    module: str | None = None
    """A module's name or a glob, with `_` for `-`; `CORE` for the core kernel; None: anywhere."""
    syscall: bool = False
    """`name` is that of a system call, to be given the architecture's prefix."""
    offset: int = 0
    """Bytes behind the function's start."""
    address: int | None = None
    is_return: bool = False
    exclude: bool = False

    @property
    def is_pattern(self) -> bool:
        """Whether the entry means any number of functions, none included."""
        return self.kind in (Kind.GLOB, Kind.REGEX)

    def matcher(self) -> Matcher:
        """What tests a name against a pattern: a glob covers it all, a regex is searched for."""
        if self.kind is Kind.REGEX:
            import re  # noqa: PLC0415  (as for the grammar)

            return re.compile(self.name).search
        return _glob_matcher(self.name)

    @property
    def part(self) -> str:
        """What every name that a glob matches has in it; a newline before what it begins with."""
        if self.kind is not Kind.GLOB:
            return ""
        from batchprobe.funclist.globs import fixed_part  # noqa: PLC0415  (as for the grammar)

        return fixed_part(self.name)

    def in_module(self, module: str) -> bool:
        """Whether the entry reaches into `module` (`""` is the core kernel)."""
        return self.module is None or bool(_glob_matcher(self.module)(module or CORE))

    def __str__(self) -> str:
        space = "syscall:" if self.syscall else f"{self.module}:" if self.module else ""
        what = f"/{self.name}/" if self.kind is Kind.REGEX else self.name
        if self.address is not None:
            what = f"{self.address:#x}"
        offset = f"+{self.offset:#x}" if self.offset else ""
        return f"{'!' * self.exclude}{space}{what}{offset}{'%return' * self.is_return}"


def parse_list(data: bytes | str, file: str) -> list[ProbeSpec]:
    """The entries of a whole list in the order written; `file` is the name errors show.

    Raises SpecError for the first line that is malformed.
    """
    text = _decode(data, file) if isinstance(data, bytes) else data
    specs = []
    # Not splitlines(): it also breaks at form feeds and the like, and editors do not count those.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        spec = parse_entry(line, Source(file, number))
        if spec is not None:
            specs.append(spec)
    return specs


def parse_entry(text: str, source: Source) -> ProbeSpec | None:
    """What one line says; None if it is blank or a comment.

    Raises SpecError for a malformed one; its column counts the characters of `text` from 1.
    """
    if not text or (text[0] == "#" and len(text) <= MAX_LINE):
        return None
    # Most are this; it means the same to the grammar, which takes ten times as long.
    if text.isidentifier() and text.isascii() and len(text) <= _LONGEST_PLAIN_NAME:
        return ProbeSpec(text, source, Kind.NAME, text)
    # A list of names alone starts without its expressions, and without `re`.
    from batchprobe.funclist.grammar import parse  # noqa: PLC0415

    return parse(text, source)


def _decode(data: bytes, file: str) -> str:
    """A file's text; SpecError where it is not text."""
    try:
        text = data.decode()
        bad, why = text.find("\0"), "a NUL byte"
    except UnicodeDecodeError as error:
        text = data[: error.start].decode()
        bad, why = len(text), f"the byte {data[error.start]:#04x}, which is not UTF-8"
    if bad < 0:
        return text
    line = text.count("\n", 0, bad) + 1
    column = bad - text.rfind("\n", 0, bad)
    raise SpecError(f"{why}: a function list is plain text", file=file, line=line, column=column)


def _glob_matcher(glob: str) -> Matcher:
    from batchprobe.funclist.globs import matcher  # noqa: PLC0415  (as for the grammar)

    return matcher(glob)
