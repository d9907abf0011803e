# SPDX-License-Identifier: Apache-2.0
"""typer's commands. What each does is in the file of its name."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import typer

from batchprobe import __version__
from batchprobe.cli.args import (
    OPTIONS,
    AttachOptions,
    LatencyOptions,
    Option,
    StacksOptions,
    TraceOptions,
    options_of,
    seconds,
)
from batchprobe.cli.attach import attach_lists
from batchprobe.cli.help_text import (
    ENVIRONMENT,
    EXAMPLES,
    EXIT_STATUSES,
    conditions,
    entries,
    table,
)
from batchprobe.cli.signals import Stop
from batchprobe.cli.tool import QUIET, SHARED_OPTIONS, run_tool
from batchprobe.errors import UsageError

__all__ = ["run"]

_COMMAND = "batchprobe"

# BadParameter is a UsageError, which typer does not export.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_ENTRIES = table("An entry is one of these:", entries())
_CONDITIONS = table("A CONDITION has these:", conditions())

app = typer.Typer(
    help="Attach kprobes to thousands of kernel functions, count hits, measure calls, or "
    "record arguments, errors and stacks, and get the final results of all of them after a single "
    "RCU grace period.",
    epilog="\n\n".join(
        (
            table("Examples:", EXAMPLES),
            table("Exit status:", EXIT_STATUSES),
            table("Environment:", ENVIRONMENT),
        )
    ),
    pretty_exceptions_enable=False,
    # Plain text, which takes a third of the time.
    rich_markup_mode=None,
)


def run(stop: Stop) -> int:
    """Run the command line; returns the exit status. Raises UsageError."""
    arguments = sys.argv[1:] or ["--help"]
    try:
        # Otherwise `python -m batchprobe` would be called that in its help.
        status = app(arguments, prog_name=_COMMAND, obj=stop, standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except _UsageError as error:
        raise UsageError(_told(error)) from error
    return status if isinstance(status, int) else 0


def _told(error: Any) -> str:
    """typer's message in our form."""
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    command = error.ctx.command_path if error.ctx else _COMMAND
    return f"{message[:1].lower()}{message[1:]} (see `{command} --help`)"


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


def _complete(incomplete: str) -> list[str]:
    from batchprobe.cli.completion import complete  # noqa: PLC0415  (only where a shell asks)

    return complete(incomplete)


def attach(context: typer.Context, lists: list[str], **asked: Any) -> None:
    """Count hits of the listed functions, until Ctrl-C.

    Attaches a probe to each function; the counts of all are final after one RCU grace period.
    ENTRY is an entry of a function list, FILE a list; - is standard input. An argument that names
    an existing file is read as a list.
    """
    raise typer.Exit(attach_lists(lists, AttachOptions(**asked), context.obj))


def latency(context: typer.Context, lists: list[str], **asked: Any) -> None:
    """Measure how long calls of functions take, until Ctrl-C.

    Attaches a probe to both ends of each function. SELF is the time of calls less that in
    traced functions that they called. ENTRY is an entry of a function list, FILE a list; - is
    standard input.
    """
    from batchprobe.cli.latency import measure_lists  # noqa: PLC0415  (one command is run)

    raise typer.Exit(measure_lists(lists, LatencyOptions(**asked), context.obj))


def trace(context: typer.Context, lists: list[str], **asked: Any) -> None:
    """Show each hit, with arguments by name and type, until Ctrl-C.

    The types are those of the kernel. With --return or a condition on the result or duration, each
    call is shown when it returns. ENTRY is an entry of a function list, FILE a list; - is standard
    input.
    """
    from batchprobe.cli.trace import trace_lists  # noqa: PLC0415  (one command is run)

    raise typer.Exit(trace_lists(lists, TraceOptions(**asked), context.obj))


def stacks(context: typer.Context, lists: list[str], **asked: Any) -> None:
    """Show from where functions are called, until Ctrl-C.

    Prints the heaviest stacks; -o FILE.svg writes a flame graph, FILE.folded lines for other tools,
    FILE.json a profile for speedscope. ENTRY is an entry of a function list, FILE a list; - is
    standard input.
    """
    from batchprobe.cli.stacks import stack_lists  # noqa: PLC0415  (one command is run)

    raise typer.Exit(stack_lists(lists, StacksOptions(**asked), context.obj))


def _tracing_signature(kind: type[AttachOptions]) -> inspect.Signature:
    """The parameters of a command that traces: what its options declare, as typer wants it."""
    lists = typer.Argument(metavar="ENTRY|FILE", hidden=True, autocompletion=_complete)
    parameters = [
        _parameter("context", typer.Context),
        _parameter("lists", Annotated[list[str], lists]),
    ]
    return inspect.Signature([*parameters, *_parameters(options_of(kind))])


def _parameters(options: Mapping[str, Option]) -> Iterator[inspect.Parameter]:
    """Declared options, as typer wants them."""
    for name, option in options.items():
        how = typer.Option(
            *option.flags,
            help=option.text,
            metavar=option.metavar,
            min=option.minimum,
            parser=_time_parser(option) if option.kind is float else None,
        )
        yield _parameter(name, Annotated[_type(option), how], option.default)


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
                f"{text!r} is not a time: write 5, 0.5, 500ms, 5m or 1h"
            ) from None
        if not math.isfinite(time):
            raise typer.BadParameter(f"{text} is not a time")
        if time < (option.minimum or 0.0):
            raise typer.BadParameter(f"{text} is less than {option.minimum:g} seconds")
        return time

    return parse


def _type(option: Option) -> Any:
    if isinstance(option.kind, tuple):
        return Literal[option.kind]
    if option.repeats:
        return list[option.kind]  # type: ignore[name-defined]
    return bool if option.kind is bool else option.kind | None


def _sign(command: Callable[..., None], signature: inspect.Signature) -> None:
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {
        name: parameter.annotation for name, parameter in signature.parameters.items()
    }


_sign(attach, _tracing_signature(AttachOptions))
app.command(epilog=_ENTRIES)(attach)
_sign(latency, _tracing_signature(LatencyOptions))
app.command(epilog=_ENTRIES)(latency)
_sign(trace, _tracing_signature(TraceOptions))
app.command(epilog=f"{_ENTRIES}\n\n{_CONDITIONS}")(trace)
_sign(stacks, _tracing_signature(StacksOptions))
app.command(epilog=_ENTRIES)(stacks)


_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@app.command(epilog=_ENTRIES)
def functions(
    what: Annotated[
        list[str],
        typer.Argument(metavar="ENTRY|FILE", hidden=True, autocompletion=_complete),
    ],
    as_json: _Json = False,
) -> None:
    """Show what would be attached, what would be skipped, and why.

    Attaches nothing. ENTRY is an entry of a function list, FILE a list; - is standard input.
    """
    from batchprobe.cli.functions import show_functions  # noqa: PLC0415  (one command is run)

    raise typer.Exit(show_functions(what, as_json=as_json))


def run_script(
    tool: Annotated[str, typer.Argument(metavar="TOOL", hidden=True)],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", hidden=True)] = None,
    quiet: Annotated[
        bool, typer.Option(*QUIET, help="Do not say at the end what was batched.")
    ] = False,
    **asked: Any,
) -> None:
    """Run a bcc tool with all its kprobes in one batch.

    TOOL is the name of a tool on PATH, or its path; what follows it is the tool's own. The tool is
    unchanged, and so are its output, exit status and signals. Its kprobes share a kernel object,
    and are removed together after one RCU grace period.

    Options such as -p say whose hits its kprobes count. What else it attaches (tracepoints,
    uprobes, perf events) is bcc's, and sees everybody; the last line says so. With --cpu, a call
    that moves to another CPU may be seen at one end only.
    """
    run_tool(tool, arguments or [], quiet=quiet, **asked)


def _run_signature() -> inspect.Signature:
    own = list(inspect.signature(run_script, eval_str=True).parameters.values())[:-1]
    pid = OPTIONS["pid"]
    text = "Count hits of this process, in all its threads; the tool does not end with it."
    other = {"pid": Option(pid.flags, pid.kind, text, pid.metavar, pid.minimum, pid.repeats)}
    return inspect.Signature([*own, *_parameters(SHARED_OPTIONS | other)])


_sign(run_script, _run_signature())
app.command("run", context_settings={"allow_interspersed_args": False})(run_script)


@app.command()
def doctor(as_json: _Json = False) -> None:
    """Report what this machine can trace with, and what it lacks.

    Also prints the command that fixes what is missing.
    """
    from batchprobe.cli.doctor import show_checks  # noqa: PLC0415

    raise typer.Exit(show_checks(as_json=as_json))


@app.command()
def cleanup(
    context: typer.Context,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="First wait for removals in the background to finish."),
    ] = False,
) -> None:
    """Remove what killed batchprobe processes left in the kernel.

    Leaves running batchprobe processes and other tools alone.
    """
    from batchprobe.cli.cleanup import remove_stale  # noqa: PLC0415

    raise typer.Exit(remove_stale(context.obj, wait=wait))
