# SPDX-License-Identifier: Apache-2.0
"""Reads what a command is given: entries, files of entries, standard input."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from batchprobe.errors import ListError, SpecError
from batchprobe.funclist.parse import parse_line, parse_list
from batchprobe.funclist.spec import ProbeSpec, Source
from batchprobe.sys.files import exists, read_waiting

__all__ = ["read_arguments"]

# What the compiler puts after a function's name and a dot.
_CLONES = ("cold", "constprop", "isra", "llvm", "part")


def read_arguments(
    words: Sequence[str], check: Callable[[], None] = lambda: None
) -> list[ProbeSpec]:
    """The entries that the arguments of a command are, or that the files have which they name; `-`
    is standard input. `check` is called every now and then, and may raise to cancel.

    Raises ListError if a file cannot be read or there is no function to probe, SpecError if an
    entry is malformed.
    """
    specs: list[ProbeSpec] = []
    errors: list[SpecError] = []
    for number, word in enumerate(words, 1):
        try:
            if word == "-" or _is_file(word):
                data = _read(word, check)
                specs += parse_list(data, "<stdin>" if word == "-" else word, check)
            else:
                specs += parse_line(word, Source("<argument>", number))
        except SpecError as error:
            errors += [error, *error.others]
    if errors:
        raise SpecError.of(errors)
    if all(spec.exclude for spec in specs):
        names = ", ".join(words)
        raise ListError(f"{names}: no function in it; write one entry per line, see the README")
    return specs


def _is_file(word: str) -> bool:
    """Whether an argument names a file, which need not exist, rather than functions."""
    if exists(word):
        return True
    if "/" in word:
        from batchprobe.funclist.grammar import may_have_slash  # noqa: PLC0415  (few do)

        return not may_have_slash(word)
    suffix = word.rpartition(".")[2] if "." in word else ""
    return suffix.isalpha() and suffix not in _CLONES


def _read(file: str, check: Callable[[], None]) -> bytes:
    try:
        if file == "-":
            return read_waiting(0, check)
        # Not blocking, so that a FIFO without a writer can be waited for.
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return read_waiting(fd, check)
        finally:
            os.close(fd)
    except OSError as error:
        raise ListError(f"cannot read {file}: {error.strerror or error}") from error
