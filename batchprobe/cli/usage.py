# SPDX-License-Identifier: Apache-2.0
"""Refuses an `attach` line that is plainly wrong, without the import of typer: under emulation
that takes longer than an attach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from batchprobe.cli.args import OPTIONS, Option, converted, seconds
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
    known = {flag: option for option in OPTIONS.values() for flag in option.flags}
    given_last: dict[Option, tuple[str, str]] = {}
    has_list = False
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if word == "-" or not word.startswith("-"):
            has_list = True
            continue
        if flag not in known or (equals and flag[:2] != "--"):
            if word[:2] in known:
                # Short options that are written together, such as -vd5.
                return ""
            return _unknown(flag if flag[:2] == "--" else flag[:2], known)
        option = known[flag]
        if option.kind is bool:
            if equals:
                return f"{flag} takes no value"
            continue
        if not equals:
            given = next(rest, None)
            if given is None:
                return f"{flag} needs a value"
            value = given
        # As in typer, the last one counts, and what no option can be is an error before any value.
        given_last[option] = flag, value
    for option, (flag, value) in given_last.items():
        if fault := _fault_of_value(value, option):
            return f"{flag} {value!r}: {fault}"
    return (
        ""
        if has_list
        else "ENTRY or FILE is missing: a function, or a list of functions; - is standard input"
    )


def _unknown(flag: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  (only for this error)

    likely = get_close_matches(flag, known, n=1) if flag[:2] == "--" else []
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
        return "not a whole number" if option.kind is int else "no time: write 5, 500ms, 5m or 1h"
    too_small = option.minimum is not None and number < option.minimum
    return f"less than {option.minimum:g}" if too_small else ""
