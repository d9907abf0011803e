# SPDX-License-Identifier: Apache-2.0
"""Refuses an `attach` line that is plainly wrong, without the import of typer: under emulation
that takes longer than an attach.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe.cli.args import OPTIONS, Option, converted, is_list, seconds, walk
from batchprobe.errors import UsageError

__all__ = ["refuse_plain_faults"]


def refuse_plain_faults(arguments: Sequence[str]) -> None:
    """Raise UsageError if typer would refuse this line for an option, a value or a missing list.

    Returns where the answer is not so plain, and for other commands: typer answers then.
    """
    if list(arguments[:1]) != ["attach"] or {"--help", "--"} & set(arguments):
        return
    if fault := _fault(arguments[1:]):
        raise UsageError(f"{fault} (see `batchprobe attach --help`)")


def _fault(words: Sequence[str]) -> str:
    given_last: dict[Option, tuple[str, str]] = {}
    has_list = False
    for word, option, value in walk(words):
        if option is None:
            if not is_list(word):
                return _unknown(word)
            has_list = True
        elif option.kind is bool:
            if value is not None:
                return f"{word} takes no value"
        elif value is None:
            return f"{word} needs a value"
        else:
            # As in typer, the last one counts, and what no option can be is an error before any
            # value.
            given_last[option] = word, value
    for option, (flag, value) in given_last.items():
        if fault := _fault_of_value(value, option):
            return f"{flag} {value!r}: {fault}"
    return (
        ""
        if has_list
        else "ENTRY or FILE is missing: a function, or a list of functions; - is standard input"
    )


def _unknown(word: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  (only for this error)

    known = [flag for option in OPTIONS.values() for flag in option.flags]
    if word[:2] in known:
        # Short options that are written together, such as -vd5.
        return ""
    is_long = word[:2] == "--"
    flag = word.partition("=")[0] if is_long else word[:2]
    likely = get_close_matches(flag, known, n=1) if is_long else []
    return f"no such option: {flag}" + (f"; did you mean {likely[0]}?" if likely else "")


def _fault_of_value(text: str, option: Option) -> str:
    """What is wrong with it; empty if it is right, or if that is not plain."""
    if isinstance(option.kind, tuple):
        return "" if text in option.kind else f"not one of {', '.join(option.kind)}"
    if option.kind is str or converted(text, option) is not None:
        return ""
    try:
        number = seconds(text) if option.kind is float else option.kind(text)
    except ValueError:
        return (
            "not a whole number" if option.kind is int else "not a time: write 5, 500ms, 5m or 1h"
        )
    too_small = option.minimum is not None and number < option.minimum
    return f"less than {option.minimum:g}" if too_small else ""
