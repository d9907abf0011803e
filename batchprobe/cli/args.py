"""What `batchprobe attach` can be asked for, and the usual ways to ask.

typer takes longer to import than the probes take to attach: so the command lines that nobody has
to be helped with are read here, and all others by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from batchprobe.attach.abis import ABIS, Placement
from batchprobe.commit.barrier import BarrierMode

__all__ = ["LEAST_INTERVAL", "AttachOptions", "read_usual"]

LEAST_INTERVAL = 0.01
"""Seconds."""


_MOST_DIGITS = 9


class AttachOptions(NamedTuple):
    """What `batchprobe attach` was asked for."""

    duration: float | None = None
    interval: float | None = None
    as_json: bool = False
    strict: bool = False
    abi: str = "auto"
    placement: str = Placement.AUTO.value
    barrier: str = BarrierMode.AUTO.value
    top: int | None = None
    command: str | None = None
    output: str | None = None


def _seconds(text: str) -> float | None:
    whole, point, part = text.partition(".")
    return float(text) if _digits(whole) and (_digits(part) if point else True) else None


def _interval(text: str) -> float | None:
    seconds = _seconds(text)
    return None if seconds is None or seconds < LEAST_INTERVAL else seconds


def _number(text: str) -> int | None:
    return int(text) if _digits(text) and text[0] != "0" else None


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _one_of(words: Iterable[str]) -> Callable[[str], str | None]:
    known = frozenset(words)
    return lambda text: text if text in known else None


def _text(text: str) -> str | None:
    return None if text.startswith("-") else text or None


_FLAGS = {"--json": "as_json", "--strict": "strict"}
# What a value cannot be made of is somebody else's to explain: None.
_VALUES: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "-d": ("duration", _seconds),
    "--duration": ("duration", _seconds),
    "-i": ("interval", _interval),
    "--interval": ("interval", _interval),
    "--abi": ("abi", _one_of(("auto", *ABIS))),
    "--placement": ("placement", _one_of(choice.value for choice in Placement)),
    "--barrier": ("barrier", _one_of(choice.value for choice in BarrierMode)),
    "--top": ("top", _number),
    "-c": ("command", _text),
    "--command": ("command", _text),
    "-o": ("output", _text),
    "--output": ("output", _text),
}


def read_usual(arguments: Sequence[str]) -> tuple[list[str], AttachOptions] | None:
    """The lists and options of an `attach` that needs no explaining; else None.

    What it reads it reads as typer would.
    """
    if list(arguments[:1]) != ["attach"]:
        return None
    files: list[str] = []
    found: dict[str, object] = {}
    rest = iter(arguments[1:])
    for argument in rest:
        word, equals, value = argument.partition("=")
        given: object
        if argument in _FLAGS:
            name, given = _FLAGS[argument], True
        elif word in _VALUES and (equals == "" or word.startswith("--")):
            name, convert = _VALUES[word]
            given = convert(value if equals else next(rest, ""))
        elif argument == "-" or not argument.startswith("-"):
            files.append(argument)
            continue
        else:
            return None
        if name in found or given is None:
            return None
        found[name] = given
    return (files, AttachOptions(**found)) if files else None  # type: ignore[arg-type]
