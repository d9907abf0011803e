# SPDX-License-Identifier: Apache-2.0
"""Turns the text of a function list into ProbeSpecs."""

from __future__ import annotations

from batchprobe.errors import SpecError
from batchprobe.funclist.spec import MAX_LINE, Kind, ProbeSpec, Source

__all__ = ["parse_entry", "parse_list"]

_MAX_PLAIN_NAME = 100


def parse_list(data: bytes | str, file: str) -> list[ProbeSpec]:
    """Parse a whole list; `file` is its name in error messages.

    Raises SpecError for the first malformed line.
    """
    text = _decode(data, file) if isinstance(data, bytes) else data
    specs = []
    # splitlines() would also split at form feeds and the like, which editors do not count as lines.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        spec = parse_entry(line, Source(file, number))
        if spec is not None:
            specs.append(spec)
    return specs


def parse_entry(text: str, source: Source) -> ProbeSpec | None:
    """Parse one line; return None if it is blank or a comment.

    Raises SpecError if it is malformed; columns count the characters of `text` from 1.
    """
    if not text or (text[0] == "#" and len(text) <= MAX_LINE):
        return None
    # Plain names, the common case: the grammar gives the same result in ten times the time.
    if text.isidentifier() and text.isascii() and len(text) <= _MAX_PLAIN_NAME:
        return ProbeSpec(text, source, Kind.NAME, text)
    # Compiling the grammar's regexes takes 2 ms; lists of plain names never need them.
    from batchprobe.funclist import grammar  # noqa: PLC0415

    return grammar.parse(text, source)


def _decode(data: bytes, file: str) -> str:
    """Decode a file's content. Raises SpecError at the first NUL or byte that is not UTF-8."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        problem = f"byte {data[error.start]:#04x} is not valid UTF-8"
        raise _not_text(problem, before, file) from error
    before, nul, _ = text.partition("\0")
    if nul:
        raise _not_text("NUL byte", before, file)
    return text


def _not_text(problem: str, before: str, file: str) -> SpecError:
    """The error for a byte that follows the text `before`."""
    line = before.count("\n") + 1
    column = len(before) - before.rfind("\n")
    message = f"{problem}: a function list must be plain text"
    return SpecError(message, file=file, line=line, column=column)
