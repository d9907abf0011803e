# SPDX-License-Identifier: Apache-2.0
"""The options of `batchprobe attach`, declared once, and a quick reader of the usual command line.

`AttachOptions` is the only declaration: `app` makes typer's command from it, and `read_usual` reads
with it the lines that need no explaining. Importing typer takes longer than attaching the probes,
so only the other lines wait for it.
"""

# Not `from __future__ import annotations`: the annotations are read at run time.
from collections.abc import Iterator, Sequence
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

__all__ = ["AttachOptions", "Option", "options", "read_usual"]

_MIN_INTERVAL_SECONDS = 0.01
_MAX_DIGITS = 9


class Option:
    """How a field of AttachOptions is written on the command line."""

    def __init__(
        self, *flags: str, text: str, metavar: str | None = None, minimum: float | None = None
    ) -> None:
        self.flags = flags
        self.text = text
        self.metavar = metavar
        self.minimum = minimum


class AttachOptions(SimpleNamespace):
    """What `batchprobe attach` was asked for."""

    duration: Annotated[
        float | None,
        Option("-d", "--duration", metavar="SECONDS", minimum=0.0, text="Stop after SECONDS."),
    ] = None
    interval: Annotated[
        float | None,
        Option(
            *("-i", "--interval"),
            metavar="SECONDS",
            minimum=_MIN_INTERVAL_SECONDS,
            text="Print new hits every SECONDS.",
        ),
    ] = None
    as_json: Annotated[bool, Option("--json", text="Print one JSON object a line.")] = False
    strict: Annotated[bool, Option("--strict", text="Exit with 4 if anything was skipped.")] = False
    abi: Annotated[
        Literal["auto", "multi", "event", "perf"],
        Option("--abi", text="Kernel object that carries the probes."),
    ] = "auto"
    placement: Annotated[
        Literal["auto", "entry", "after"],
        Option("--placement", text="At a function's entry, or after its patch site."),
    ] = "auto"
    barrier: Annotated[
        Literal["auto", "expedited", "normal"],
        Option("--barrier", text="Whether grace periods may be expedited (rcu_expedited)."),
    ] = "auto"
    top: Annotated[
        int | None, Option("--top", metavar="N", minimum=1, text="Show only the N most hit.")
    ] = None
    command: Annotated[
        str | None, Option("-c", "--command", metavar="CMD", text="Trace while CMD runs.")
    ] = None
    output: Annotated[
        str | None, Option("-o", "--output", metavar="FILE", text="Write the results to FILE.")
    ] = None
    verbose: Annotated[
        bool, Option("-v", "--verbose", text="Say what was tried, and why an ABI was passed over.")
    ] = False

    def __init__(self, **asked: Any) -> None:
        """`asked` are values of options, by name; the others have their defaults."""
        defaults = {name: getattr(AttachOptions, name) for name in AttachOptions.__annotations__}
        super().__init__(**(defaults | asked))


def options() -> Iterator[tuple[str, Any, Option]]:
    """Each field of AttachOptions: its name, its type, and its option."""
    for name, annotation in AttachOptions.__annotations__.items():
        type_, option = get_args(annotation)
        yield name, type_, option


def read_usual(arguments: Sequence[str]) -> tuple[list[str], AttachOptions] | None:
    """The lists and options of an `attach` line, exactly as typer would read it.

    None for every line that is not plainly right: help, an error, another command.
    """
    if list(arguments[:1]) != ["attach"]:
        return None
    known = {flag: (name, type_, o) for name, type_, o in options() for flag in o.flags}
    files: list[str] = []
    found: dict[str, Any] = {}
    rest = iter(arguments[1:])
    for argument in rest:
        word, equals, value = argument.partition("=")
        given: object
        if argument in known and known[argument][1] is bool:
            name, given = known[argument][0], True
        elif word in known and known[word][1] is not bool and (not equals or word[:2] == "--"):
            name, type_, option = known[word]
            given = _converted(value if equals else next(rest, ""), type_, option.minimum)
        elif argument == "-" or not argument.startswith("-"):
            files.append(argument)
            continue
        else:
            return None
        if name in found or given is None:
            return None
        found[name] = given
    return (files, AttachOptions(**found)) if files else None


def _converted(text: str, type_: Any, minimum: float | None) -> object:
    """The value of an option; None if typer has to look at it."""
    if get_origin(type_) is Literal:
        return text if text in get_args(type_) else None
    if isinstance(type_, UnionType):
        type_ = get_args(type_)[0]
    if type_ is str:
        return None if text.startswith("-") else text or None
    whole, point, fraction = text.partition(".")
    if not _digits(whole) or (point and (type_ is int or not _digits(fraction))):
        return None
    number: float = type_(text)
    return None if minimum is not None and number < minimum else number


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
