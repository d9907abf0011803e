# SPDX-License-Identifier: Apache-2.0
"""Turns the text of a function list into ProbeSpecs."""

from __future__ import annotations

from collections.abc import Callable

from batchprobe.errors import SpecError
from batchprobe.funclist.spec import Kind, ProbeSpec, Source

__all__ = ["parse_line", "parse_list"]

_LINES_BETWEEN_CHECKS = 1000
_MAX_PLAIN_NAME = 100


def parse_list(
    data: bytes | str, file: str, check: Callable[[], None] = lambda: None
) -> list[ProbeSpec]:
    """Parse a whole list; `file` is its name in error messages. `check` is called every now and
    then, and may raise to cancel.

    Raises SpecError for the malformed lines: it names up to ten.
    """
    text = data.decode(errors="surrogateescape") if isinstance(data, bytes) else data
    specs: list[ProbeSpec] = []
    errors: list[SpecError] = []
    # splitlines() would also split at form feeds and the like, which editors do not count as lines.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if number % _LINES_BETWEEN_CHECKS == 0:
            check()
        try:
            specs += parse_line(line, Source(file, number))
        except SpecError as error:
            errors.append(error)
    if errors:
        raise SpecError.of(errors)
    return specs


def parse_line(text: str, source: Source) -> list[ProbeSpec]:
    """The entries of one line; none if it is blank or a comment.

    Raises SpecError if it is malformed; columns count the characters of `text` from 1.
    """
    if not text or text[0] == "#":
        return []
    # Plain names, the common case: the grammar gives the same result in ten times the time.
    if text.isidentifier() and text.isascii() and len(text) <= _MAX_PLAIN_NAME:
        return [ProbeSpec(text, source, Kind.NAME, text)]
    # Compiling the grammar's regexes takes 2 ms; lists of plain names never need them.
    from batchprobe.funclist import grammar  # noqa: PLC0415

    return grammar.parse(text, source)
