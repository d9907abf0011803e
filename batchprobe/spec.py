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

import enum
import fnmatch
import functools
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple, NoReturn, cast

from batchprobe.errors import SpecError

__all__ = ["CORE", "Kind", "Matcher", "ProbeSpec", "Source", "parse_entry", "parse_list"]

CORE = "vmlinux"
"""What a list calls the core kernel where a module's name is expected."""

MAX_LINE = 4096
"""Characters in a line. The longest kernel symbol has 511 (KSYM_NAME_LEN in linux/kallsyms.h)."""

Matcher = Callable[[str], object]
"""Says by its truth whether a name matches."""

_COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.DOTALL)
# Matches any text whatever: the parts are checked one by one, so that each has its own message.
_ENTRY = re.compile(
    r"""(?P<exclude>!)?
        (?:(?P<module>[^:/+%]*):)?
        (?:/(?P<regex>.*)/|(?P<name>[^+%]*))
        (?P<offset>\+[^%]*)?
        (?P<suffix>%.*)?""",
    re.VERBOSE | re.DOTALL,
)
_WILD = re.compile(r"[*?\[\]]")
# One character or more that a glob does not tell.
_UNKNOWN = re.compile(r"\*|\?|\[[!^]?[^]]+\]")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_NAME = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]*")
_GLOB = re.compile(r"(?:[A-Za-z0-9_.$*?]|\[[!^]?[A-Za-z0-9_.$-]+\])+")
_MODULE = re.compile(r"(?:[A-Za-z0-9_*?-]|\[[!^]?[A-Za-z0-9_-]+\])+")
_OFFSET = re.compile(r"\+(?:0[xX][0-9a-fA-F]+|[0-9]+)")
_ADDRESS = re.compile(r"0[xX]0*[0-9a-fA-F]{1,16}")


class Source(NamedTuple):
    """Where an entry stands: the file as the user named it, and the line from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Kind(enum.Enum):
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
            return re.compile(self.name).search
        return _glob_matcher(self.name)

    @property
    def part(self) -> str:
        """What every name that a glob matches has in it; a newline before what it begins with."""
        if self.kind is not Kind.GLOB:
            return ""
        first, *others = _UNKNOWN.split(self.name)
        return max(f"\n{first}" if first else "", *others, key=len)

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
    # Most are this; it means the same to the grammar, which takes ten times as long.
    if _PLAIN_NAME.fullmatch(text):
        return ProbeSpec(text, source, Kind.NAME, text)
    return _parse(text, source)


def _parse(text: str, source: Source) -> ProbeSpec | None:
    entry = _Entry(text, source)
    if len(text) > MAX_LINE:
        entry.fail(f"a line of {len(text)} characters: {MAX_LINE} are the most accepted")
    if not entry.text:
        return None
    if space := re.search(r"\s", entry.text):
        entry.fail("white space inside an entry: one entry a line, comments after #", space.start())
    kind, name = _kind_and_name(entry)
    module = _module(entry, kind)
    spec = ProbeSpec(
        text=entry.text,
        source=source,
        kind=kind,
        name="" if kind is Kind.ADDRESS else name,
        module=None if module == "syscall" else module,
        syscall=module == "syscall",
        offset=_offset(entry, kind),
        address=int(name, 16) if kind is Kind.ADDRESS else None,
        is_return=_is_return(entry),
        exclude=bool(entry.parts["exclude"]),
    )
    if spec.exclude and (kind is Kind.ADDRESS or entry.parts["offset"] or spec.is_return):
        entry.fail("an exclude leaves out whole functions: !NAME, !GLOB or !/REGEX/, no more")
    return spec


class _Entry:
    """An entry being parsed: its text, its parts, and the error that points into it."""

    def __init__(self, line: str, source: Source) -> None:
        code = _COMMENT.sub("", line)
        self.text = code.strip()
        self.parts = cast("re.Match[str]", _ENTRY.fullmatch(self.text))  # matches anything
        self._start = len(code) - len(code.lstrip())
        self._source = source

    def fail(self, message: str, at: int | str = 0) -> NoReturn:
        """Raise SpecError for the character `at` of the entry, or where the part `at` begins."""
        column = self._start + 1 + (self.parts.start(at) if isinstance(at, str) else at)
        raise SpecError(message, file=self._source.file, line=self._source.line, column=column)


def _kind_and_name(entry: _Entry) -> tuple[Kind, str]:
    regex, name = entry.parts["regex"], entry.parts["name"]
    if regex is not None:
        _check_regex(entry, regex)
        return Kind.REGEX, regex
    if name.startswith("/"):
        entry.fail("a regex ends with a slash, and only %return may follow: /REGEX/", "name")
    if not name:
        entry.fail("no name: write NAME, GLOB, /REGEX/, syscall:NAME or 0xADDRESS", "name")
    if name[:2] in ("0x", "0X"):
        if not _ADDRESS.fullmatch(name):
            entry.fail(f"{name!r} is no address: 0x and 1 to 16 hexadecimal digits", "name")
        return Kind.ADDRESS, name
    if _WILD.search(name):
        _check_characters(entry, _GLOB, "name", "a glob has letters, digits, _ . $ * ? and [...]")
        return Kind.GLOB, name
    if name[0].isdigit():
        entry.fail(f"{name!r} begins with a digit: no function does (an address needs 0x)", "name")
    _check_characters(entry, _NAME, "name", "a name has letters, digits and _ . $")
    return Kind.NAME, name


def _check_regex(entry: _Entry, regex: str) -> None:
    if not regex:
        entry.fail("an empty regex: it would match every function", "regex")
    try:
        with warnings.catch_warnings():
            # [[:alpha:]] and the like mean something else to Python than to grep, says this one.
            warnings.simplefilter("error", FutureWarning)
            re.compile(regex)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        at = entry.parts.start("regex") + (getattr(error, "pos", None) or 0)
        entry.fail(f"not a regex as Python's re takes it: {getattr(error, 'msg', error)}", at)


def _module(entry: _Entry, kind: Kind) -> str | None:
    module = entry.parts["module"]
    if module is None:
        return None
    if not module:
        entry.fail("no module before the colon: write MODULE:NAME or vmlinux:NAME", "module")
    if kind is Kind.ADDRESS:
        entry.fail("an address stands alone: 0xADDRESS, without a module", "module")
    _check_characters(entry, _MODULE, "module", "a module has letters, digits and _ - * ? [...]")
    # modprobe's habit: the two are one. Not inside brackets, where - is a range.
    return re.sub(r"\[.*?\]|-", lambda part: "_" if part[0] == "-" else part[0], module)


def _check_characters(entry: _Entry, grammar: re.Pattern[str], part: str, accepted: str) -> None:
    """Fail at the first character of a part that its grammar does not take."""
    text: str = entry.parts[part]
    good = grammar.match(text)
    end = good.end() if good else 0
    if end == len(text):
        return
    hint = {"#": "; a comment needs white space before it", "[": " (closed, not empty)"}
    entry.fail(
        f"{text[end]!r} cannot stand here: {accepted}{hint.get(text[end], '')}",
        entry.parts.start(part) + end,
    )


def _offset(entry: _Entry, kind: Kind) -> int:
    offset = entry.parts["offset"]
    if offset is None:
        return 0
    if kind is Kind.ADDRESS:
        entry.fail("an address takes no offset: write the sum", "offset")
    if kind is not Kind.NAME:
        entry.fail("an offset needs one function by its exact name: NAME+0x1c", "offset")
    if not _OFFSET.fullmatch(offset):
        entry.fail(f"{offset!r} is no offset: write NAME+0x1c or NAME+28", "offset")
    if entry.parts["suffix"]:
        entry.fail("a return probe takes no offset: write NAME%return", "offset")
    return int(offset, 16 if offset[2:3] in ("x", "X") else 10)


def _is_return(entry: _Entry) -> bool:
    suffix = entry.parts["suffix"]
    if suffix not in (None, "%return"):
        entry.fail(f"{suffix!r}: only %return may follow a name", "suffix")
    return suffix is not None


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


@functools.lru_cache
def _glob_matcher(glob: str) -> Matcher:
    # fnmatch knows [!...] only, a shell [^...] as well
    return re.compile(fnmatch.translate(glob.replace("[^", "[!"))).match
