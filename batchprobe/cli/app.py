# SPDX-License-Identifier: Apache-2.0
"""typer's commands. What each does is in the file of its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from batchprobe import __version__
from batchprobe.cli.args import OPTIONS, AttachOptions, Option, seconds
from batchprobe.cli.attach import attach_lists
from batchprobe.cli.signals import Stop

__all__ = ["run"]

app = typer.Typer(
    help="Attach kprobes to thousands of kernel functions, count hits, and detach them all with a "
    "single RCU grace period.",
    epilog="Exit status: 0 traced and removed everything (also after Ctrl-C), 1 error, 2 usage or "
    "an unreadable list, 3 nothing attached, 4 something skipped under --strict, 5 something could "
    "not be removed, 77 this machine cannot trace, 128+N ended by signal N before the probes were "
    "on. With -c, the command's own status. BATCHPROBE_DEBUG=1 prints the traceback of an error.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def run(stop: Stop) -> int:
    """Run the command line; returns the exit status."""
    try:
        app(obj=stop)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchprobe {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _show: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def attach(context: typer.Context, lists: list[str], **asked: Any) -> None:
    """Attach a probe to each function of the lists, count their hits, detach all in one batch."""
    raise typer.Exit(attach_lists(lists, AttachOptions(**asked), context.obj))


def _attach_signature() -> inspect.Signature:
    """The parameters of `attach`: what AttachOptions declares, as typer wants it."""
    lists = typer.Argument(metavar="FILE...", help="Function lists; - is standard input.")
    parameters = [
        _parameter("context", typer.Context),
        _parameter("lists", Annotated[list[str], lists]),
    ]
    for name, option in OPTIONS.items():
        how = typer.Option(
            *option.flags,
            help=option.text,
            metavar=option.metavar,
            min=option.minimum,
            parser=_time_parser(option) if option.kind is float else None,
        )
        parameters.append(_parameter(name, Annotated[_type(option), how], option.default))
    return inspect.Signature(parameters)


def _parameter(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def _time_parser(option: Option) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            time = seconds(text)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is no time: write 5, 0.5, 500ms, 5m or 1h"
            ) from None
        # Not "less than", which no comparison with nan is.
        if not time >= (option.minimum or 0.0):
            raise typer.BadParameter(f"{text} is less than {option.minimum:g} seconds")
        return time

    return parse


def _type(option: Option) -> Any:
    if isinstance(option.kind, tuple):
        return Literal[option.kind]
    return bool if option.kind is bool else option.kind | None


attach.__signature__ = _attach_signature()  # type: ignore[attr-defined]
attach.__annotations__ = {
    name: parameter.annotation for name, parameter in _attach_signature().parameters.items()
}
app.command()(attach)


_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@app.command()
def functions(
    what: Annotated[
        list[str],
        typer.Argument(metavar="ENTRY|FILE...", help="Entries, or lists of them; - is stdin."),
    ],
    as_json: _Json = False,
) -> None:
    """Show what would be attached, what would be skipped, and why. Attaches nothing."""
    from batchprobe.cli.functions import show_functions  # noqa: PLC0415  (one command is run)

    raise typer.Exit(show_functions(what, as_json=as_json))


@app.command()
def doctor(as_json: _Json = False) -> None:
    """Say what this machine can trace with, and what would help where it cannot."""
    from batchprobe.cli.doctor import show_checks  # noqa: PLC0415

    raise typer.Exit(show_checks(as_json=as_json))


@app.command()
def cleanup() -> None:
    """Remove what killed batchprobe processes left: nothing of living ones or of other tools."""
    from batchprobe.cli.cleanup import remove_stale  # noqa: PLC0415

    raise typer.Exit(remove_stale())
