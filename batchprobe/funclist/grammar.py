# SPDX-License-Identifier: Apache-2.0
"""The grammar of a line of a function list, and an error for each way to break it.

`batchprobe.funclist.spec` describes the syntax, `batchprobe.funclist.foreign` that of other tools.
"""

from __future__ import annotations

import re
import warnings
from typing import NoReturn

from batchprobe.errors import SpecError
from batchprobe.funclist.foreign import translate
from batchprobe.funclist.spec import MAX_LINE, Kind, ProbeSpec, Source

__all__ = ["may_have_slash", "parse"]

_COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.DOTALL)
_WITH_REGEX = re.compile(r"!?(?:[^/:]+:)?/.+/(?:%return|:return|,.*)?")
_NO_TEXT = re.compile("[\0\udc80-\udcff]")
# Commas separate entries, but may be part of a regex.
_HAS_REGEX = re.compile(r"(?:^|[:!,\s])/")
# Matches any text. The parts are checked one by one, so that each mistake gets its own message.
_ENTRY = re.compile(
    r"""(?P<exclude>!)?
        (?:(?P<module>[^:/+%]*):)?
        (?:/(?P<regex>.*)/|(?P<name>[^+%]*))
        (?P<offset>\+[^%]*)?
        (?P<suffix>%.*)?""",
    re.VERBOSE | re.DOTALL,
)
_WILD = re.compile(r"[*?\[\]]")
_NAME = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]*")
_GLOB = re.compile(r"(?:[A-Za-z0-9_.$*?]|\[[!^]?[A-Za-z0-9_.$-]+\])+")
_MODULE = re.compile(r"(?:[A-Za-z0-9_*?-]|\[[!^]?[A-Za-z0-9_-]+\])+")
_OFFSET = re.compile(r"\+(?:0[xX][0-9a-fA-F]+|[0-9]+)")
_ADDRESS = re.compile(r"0[xX]0*[0-9a-fA-F]{1,16}")


def parse(text: str, source: Source) -> list[ProbeSpec]:
    """Parse any line: see `batchprobe.funclist.parse.parse_line`."""
    code = _COMMENT.sub("", text)
    if len(code) > MAX_LINE:
        message = f"line of {len(code)} characters: the limit is {MAX_LINE}"
        raise SpecError(message, file=source.file, line=source.line, column=1)
    if found := _NO_TEXT.search(code):
        # What could not be decoded was escaped (PEP 383).
        byte = ord(found[0]) - 0xDC00
        problem = f"byte {byte:#04x} is not valid UTF-8" if byte > 0 else "NUL byte"
        message = f"{problem}: a function list must be plain text"
        raise SpecError(message, file=source.file, line=source.line, column=found.start() + 1)
    pieces = [code] if _HAS_REGEX.search(code) else code.split(",")
    specs = []
    column = 1
    for piece in pieces:
        if piece.strip():
            start = column + len(piece) - len(piece.lstrip())
            specs.append(_parse_entry(piece.strip(), start, source))
        column += len(piece) + 1
    if not specs and code.strip():
        message = "commas separate entries, and there is none"
        raise SpecError(message, file=source.file, line=source.line, column=1)
    return specs


def may_have_slash(text: str) -> bool:
    """Whether a line with a slash is an entry: a regex, or another tool's with white space or of a
    kind that has paths. Otherwise it is a path.
    """
    if re.search(r"\s", text) or _WITH_REGEX.fullmatch(text):
        return True
    try:
        return translate(text) is not None
    except ValueError:
        return True


def _parse_entry(text: str, start: int, source: Source) -> ProbeSpec:
    """Parse an entry that begins at the column `start` of its line."""
    try:
        foreign = translate(text)
    except ValueError as error:
        message = str(error)
        raise SpecError(message, file=source.file, line=source.line, column=start) from error
    if foreign is None:
        return _parse_own(_Entry(text, start, source))
    if foreign.instead:
        return ProbeSpec(text, source, Kind.OTHER, foreign.instead)
    spec = _parse_own(_Entry(foreign.entry, start, source, written=text))
    return spec.with_changes(text=text, hint=foreign.address)


def _parse_own(entry: _Entry) -> ProbeSpec:
    """Parse an entry in our spelling."""
    if space := re.search(r"\s", entry.text):
        message = (
            "white space inside an entry: write one entry per line, or commas between them; "
            "comments start with #"
        )
        entry.fail(message, space.start())
    kind, name = _kind_and_name(entry)
    module = _module(entry, kind)
    spec = ProbeSpec(
        text=entry.text,
        source=entry.source,
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
        entry.fail("an exclusion covers whole functions: write only !NAME, !GLOB or !/REGEX/")
    return spec


class _Entry:
    """An entry being parsed: its text, its parts, and errors that point into it."""

    def __init__(self, text: str, start: int, source: Source, *, written: str = "") -> None:
        """`start` is its column. `written` is how it stands there, if it was translated."""
        self.text = text
        # Never None: the regex matches any text.
        self.parts: re.Match[str] = _ENTRY.fullmatch(text)  # type: ignore[assignment]
        self.source = source
        self._start = start
        self._written = written

    def fail(self, message: str, at: int | str = 0) -> NoReturn:
        """Raise SpecError at the character `at` of the entry, or at the start of the part `at`."""
        column = self._start
        if self._written:
            # No column of what it means is one of what is written.
            message = f"{self._written!r} means {self.text!r}: {message}"
        else:
            column += self.parts.start(at) if isinstance(at, str) else at
        raise SpecError(message, file=self.source.file, line=self.source.line, column=column)


def _kind_and_name(entry: _Entry) -> tuple[Kind, str]:
    regex, name = entry.parts["regex"], entry.parts["name"]
    if regex is not None:
        _check_regex(entry, regex)
        return Kind.REGEX, regex
    if name.startswith("/"):
        entry.fail("a regex must end with a slash; only %return may follow: /REGEX/", "name")
    if not name:
        entry.fail("missing name: write NAME, GLOB, /REGEX/, syscall:NAME or 0xADDRESS", "name")
    if name[:2] in ("0x", "0X"):
        if not _ADDRESS.fullmatch(name):
            entry.fail(
                f"{name!r} is not an address: write 0x and 1 to 16 hexadecimal digits", "name"
            )
        return Kind.ADDRESS, name
    if _WILD.search(name):
        accepted = "a glob may contain letters, digits, _ . $ * ? and [...]"
        _check_characters(entry, _GLOB, "name", accepted)
        return Kind.GLOB, name
    if name[0].isdigit():
        entry.fail(f"{name!r} starts with a digit: no function does; addresses need 0x", "name")
    _check_characters(entry, _NAME, "name", "a name may contain letters, digits and _ . $")
    return Kind.NAME, name


def _check_regex(entry: _Entry, regex: str) -> None:
    if not regex:
        entry.fail("empty regex: it would match every function", "regex")
    try:
        with warnings.catch_warnings():
            # Python warns about [[:alpha:]] and the like, whose meaning differs from grep's.
            warnings.simplefilter("error", FutureWarning)
            re.compile(regex)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        at = entry.parts.start("regex") + (getattr(error, "pos", None) or 0)
        entry.fail(f"not a valid Python regex: {getattr(error, 'msg', error)}", at)


def _module(entry: _Entry, kind: Kind) -> str | None:
    module = entry.parts["module"]
    if module is None:
        return None
    if not module:
        entry.fail("missing module before the colon: write MODULE:NAME or vmlinux:NAME", "module")
    if kind is Kind.ADDRESS:
        entry.fail("an address takes no module: write 0xADDRESS", "module")
    accepted = "a module may contain letters, digits, _ - * ? and [...]"
    _check_characters(entry, _MODULE, "module", accepted)
    # Like modprobe, treat - as _, except inside brackets, where it denotes a range.
    return re.sub(r"\[.*?\]|-", lambda part: "_" if part[0] == "-" else part[0], module)


def _check_characters(entry: _Entry, grammar: re.Pattern[str], part: str, accepted: str) -> None:
    """Fail at the first character of a part that its grammar does not accept."""
    text: str = entry.parts[part]
    good = grammar.match(text)
    end = good.end() if good else 0
    if end == len(text):
        return
    hint = {"#": "; a comment needs white space before it", "[": ", closed and not empty"}
    entry.fail(
        f"unexpected {text[end]!r}: {accepted}{hint.get(text[end], '')}",
        entry.parts.start(part) + end,
    )


def _offset(entry: _Entry, kind: Kind) -> int:
    offset = entry.parts["offset"]
    if offset is None:
        return 0
    if kind is Kind.ADDRESS:
        entry.fail("an address takes no offset: add it to the address", "offset")
    if kind is not Kind.NAME:
        entry.fail("an offset needs an exact function name: NAME+0x1c", "offset")
    if not _OFFSET.fullmatch(offset):
        entry.fail(f"{offset!r} is not an offset: write NAME+0x1c or NAME+28", "offset")
    if entry.parts["suffix"]:
        entry.fail("a return probe takes no offset: write NAME%return", "offset")
    return int(offset, 16 if offset[2:3] in ("x", "X") else 10)


def _is_return(entry: _Entry) -> bool:
    suffix = entry.parts["suffix"]
    if suffix not in (None, "%return"):
        entry.fail(f"unexpected {suffix!r}: only %return may follow a name", "suffix")
    return suffix is not None
