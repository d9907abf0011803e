# SPDX-License-Identifier: Apache-2.0
"""The options of `batchprobe attach` and its kin, declared once, and a quick reader of the usual
`attach` line.

`AttachOptions` is the only declaration: `app` makes typer's command from it, and `read_usual` reads
with it the lines that need no explaining. Importing typer takes longer than attaching the probes,
so only the other lines wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "OPTIONS",
    "SCOPE",
    "AttachOptions",
    "LatencyOptions",
    "Option",
    "StacksOptions",
    "TraceOptions",
    "converted",
    "is_list",
    "options_of",
    "read_usual",
    "seconds",
    "walk",
]

SCOPE = ("pid", "tid", "comm", "uid", "cpu", "cgroup", "unit", "netns")
"""The fields of AttachOptions that say whose hits count."""
_MIN_INTERVAL_SECONDS = 0.01
# No unit is seconds. The longer one first, because 5ms ends with s too.
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_DIGITS = 9


class Option:
    """How a field of AttachOptions is written on the command line.

    `kind` is a type, or the words to choose from, of which the first is the default.
    """

    def __init__(
        self,
        flags: tuple[str, ...],
        kind: type | tuple[str, ...],
        text: str,
        metavar: str | None,
        minimum: float | None,
        repeats: bool,
    ) -> None:
        self.flags = flags
        self.kind = kind
        self.text = text
        self.metavar = metavar
        self.minimum = minimum
        self.repeats = repeats
        """Whether it may be given several times; its field is a list then."""

    @property
    def default(self) -> object:
        """The value of an option that is not given."""
        if isinstance(self.kind, tuple):
            return self.kind[0]
        if self.repeats:
            return []
        return False if self.kind is bool else None


def _option(
    *flags: str,
    kind: type | tuple[str, ...],
    text: str,
    metavar: str | None = None,
    minimum: float | None = None,
    repeats: bool = False,
) -> Any:
    """An Option. Any, because what the field gets in the end is its value."""
    return Option(flags, kind, text, metavar, minimum, repeats)


class AttachOptions:
    """What `batchprobe attach` was asked for."""

    duration: float | None = _option(
        "-d",
        "--duration",
        kind=float,
        metavar="SECONDS",
        minimum=0.0,
        text="Stop after SECONDS, or 5m, 1h, 500ms.",
    )
    interval: float | None = _option(
        *("-i", "--interval"),
        kind=float,
        metavar="SECONDS",
        minimum=_MIN_INTERVAL_SECONDS,
        text="Print new hits every SECONDS.",
    )
    as_json: bool = _option("--json", kind=bool, text="Print one JSON object a line.")
    strict: bool = _option(
        "--strict",
        kind=bool,
        text="Exit with 4 if anything was skipped, or waited for its module.",
    )
    abi: str = _option(
        "--abi",
        kind=("auto", "multi", "event", "perf"),
        text="What carries the probes: a kprobe_multi link, a trace event, or a perf kprobe each.",
    )
    placement: str = _option(
        "--placement",
        kind=("auto", "entry", "after"),
        text="At a function's entry, or after its patch site (the bytes that ftrace rewrites).",
    )
    barrier: str = _option(
        "--barrier",
        kind=("auto", "expedited", "normal"),
        text="Whether grace periods may be expedited (rcu_expedited).",
    )
    top: int | None = _option(
        "--top", kind=int, metavar="N", minimum=1, text="Show only the first N rows."
    )
    command: str | None = _option(
        "-c",
        "--command",
        kind=str,
        metavar="CMD",
        text="Run CMD (no shell reads it), count its hits and those of its descendants until it "
        "ends, and exit with its status.",
    )
    all_processes: bool = _option(
        "-a", "--all", kind=bool, text="With -c: count the hits of the whole machine."
    )
    pid: list[int] = _option(
        *("-p", "--pid"),
        kind=int,
        metavar="PID",
        minimum=1,
        repeats=True,
        text="Count hits of this process, in all its threads; stop when it ends.",
    )
    tid: list[int] = _option(
        "--tid", kind=int, metavar="TID", minimum=1, repeats=True, text="Count hits of this thread."
    )
    children: bool = _option(
        "--children", kind=bool, text="With -p or --tid: count hits of the descendants too."
    )
    comm: list[str] = _option(
        "--comm", kind=str, metavar="NAME", repeats=True, text="Count hits of tasks of this name."
    )
    uid: list[str] = _option(
        "--uid", kind=str, metavar="USER", repeats=True, text="Count hits of this user's tasks."
    )
    cpu: str | None = _option(
        "--cpu", kind=str, metavar="LIST", text="Count hits on these CPUs, such as 0-3,8."
    )
    cgroup: list[str] = _option(
        "--cgroup",
        kind=str,
        metavar="PATH",
        repeats=True,
        text="Count hits of tasks in this cgroup (v2) and below it.",
    )
    unit: list[str] = _option(
        "--unit",
        kind=str,
        metavar="NAME",
        repeats=True,
        text="Count hits of tasks of this systemd unit.",
    )
    netns: list[str] = _option(
        "--netns",
        kind=str,
        metavar="NAME|PID|PATH",
        repeats=True,
        text="Count hits of tasks in this network namespace.",
    )
    output: str | None = _option(
        "-o", "--output", kind=str, metavar="FILE", text="Write the results to FILE."
    )
    no_wait: bool = _option(
        "--no-wait",
        kind=bool,
        text="End when the results are final; the probes are removed in the background.",
    )
    verbose: bool = _option(
        "-v",
        "--verbose",
        kind=bool,
        text="Say what was tried, why an ABI was passed over, and which processes were followed.",
    )

    def __init__(self, **asked: Any) -> None:
        """`asked` are values of options by name; the others have their defaults."""
        for name, option in options_of(type(self)).items():
            setattr(self, name, asked.get(name, option.default))

    @property
    def follows(self) -> bool:
        """Whether a tree of processes is asked for."""
        return self.children or (self.command is not None and not self.all_processes)

    @property
    def narrows(self) -> bool:
        """Whether some hits are not to count, or the options contradict each other about that."""
        return self.follows or any(getattr(self, name) for name in (*SCOPE, "all_processes"))


class LatencyOptions(AttachOptions):
    """What `batchprobe latency` was asked for."""

    sort: str = _option(
        "--sort",
        kind=("total", "self", "calls", "avg", "p50", "p99", "max"),
        text="Sort the table by this column, largest first.",
    )
    histogram: bool = _option(
        "--histogram", kind=bool, text="Draw how the times of the first functions are distributed."
    )


class TraceOptions(AttachOptions):
    """What `batchprobe trace` was asked for."""

    returns: bool = _option(
        *("-r", "--return"),
        kind=bool,
        text="Show calls when they return, with result and duration.",
    )
    where: str | None = _option(
        *("-w", "--where"),
        kind=str,
        metavar="CONDITION",
        text="Show only hits that meet it, such as 'size > 4096 && result < 0'.",
    )
    arg: list[str] = _option(
        "--arg",
        kind=str,
        metavar="PATH",
        repeats=True,
        text="Show this value too, read through pointers, such as sk.__sk_common.skc_dport.",
    )
    errors: bool = _option(
        "--errors",
        kind=bool,
        text="Show no hits, but count the errors that functions return, by name.",
    )
    stacks: bool = _option(
        "--stacks", kind=bool, text="With --errors: show from where the failing calls came."
    )
    limit: int | None = _option(
        *("-n", "--limit"), kind=int, metavar="N", minimum=1, text="Stop after N events."
    )
    rate: int | None = _option(
        "--rate", kind=int, metavar="N", minimum=1, text="Record at most N events a second."
    )


class StacksOptions(AttachOptions):
    """What `batchprobe stacks` was asked for."""

    by_time: bool = _option(
        "--time",
        kind=bool,
        text="Weigh stacks by the time in the calls, less that in traced functions they call.",
    )
    user: bool = _option(
        *("-u", "--user"),
        kind=bool,
        text="Continue stacks in user space, separately for each process.",
    )


def options_of(kind: type[AttachOptions]) -> dict[str, Option]:
    """How each field is written."""
    fields = (vars(base).items() for base in reversed(kind.__mro__))
    return {name: value for base in fields for name, value in base if isinstance(value, Option)}


OPTIONS = options_of(AttachOptions)
"""How each field of AttachOptions is written."""


def read_usual(arguments: Sequence[str]) -> tuple[list[str], AttachOptions] | None:
    """The lists and options of an `attach` line, exactly as typer would read it.

    None for every line that is not plainly right: help, an error, another command.
    """
    if list(arguments[:1]) != ["attach"]:
        return None
    names = {option: name for name, option in OPTIONS.items()}
    files: list[str] = []
    found: dict[str, Any] = {}
    for word, option, value in walk(arguments[1:]):
        given: object
        if option is None:
            if not is_list(word):
                return None
            files.append(word)
            continue
        if option.kind is bool:
            given = True if value is None else None
        else:
            given = converted(value or "", option)
        name = names[option]
        if given is None or (name in found and not option.repeats):
            return None
        if option.repeats:
            given = [*found.get(name, []), given]
        found[name] = given
    return (files, AttachOptions(**found)) if files else None


def walk(words: Iterable[str]) -> Iterator[tuple[str, Option | None, str | None]]:
    """The words of a line: flags of `attach` with their option and its value, if that is there; the
    rest, lists and what typer has to look at, as they are.
    """
    known = {flag: option for option in OPTIONS.values() for flag in option.flags}
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        option = known.get(flag)
        if option is None or (equals and flag[:2] != "--"):
            yield word, None, None
        elif equals:
            yield flag, option, value
        else:
            yield flag, option, None if option.kind is bool else next(rest, None)


def is_list(word: str) -> bool:
    """Whether the word is an entry or a file, and no option."""
    return word == "-" or not word.startswith("-")


def converted(text: str, option: Option) -> object:
    """The value of an option; None if typer has to look at it."""
    if isinstance(option.kind, tuple):
        return text if text in option.kind else None
    if option.kind is str:
        return None if text.startswith("-") else text or None
    is_time = option.kind is float
    whole, point, fraction = (_without_unit(text)[0] if is_time else text).partition(".")
    if not _digits(whole) or (point and (not is_time or not _digits(fraction))):
        return None
    number = seconds(text) if is_time else int(text)
    return None if option.minimum is not None and number < option.minimum else number


def seconds(text: str) -> float:
    """A time as the command line has it: seconds, or a number with its unit. Raises ValueError."""
    number, unit = _without_unit(text)
    return float(number) * unit


def _without_unit(text: str) -> tuple[str, float]:
    for unit, length in _UNITS.items():
        if text.endswith(unit):
            return text.removesuffix(unit), length
    return text, 1.0


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
