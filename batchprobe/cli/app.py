"""The command line: parse, call the library, render."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from batchprobe import __version__
from batchprobe.cli.args import LEAST_INTERVAL, AttachOptions
from batchprobe.cli.attach import attach_lists
from batchprobe.cli.signals import Stop
from batchprobe.funclist.read import read_lists
from batchprobe.funclist.spec import ProbeSpec, Source, parse_entry
from batchprobe.output.json_lines import JsonReport
from batchprobe.output.text import TextReport, tell

__all__ = ["run"]

app = typer.Typer(
    help="Probes on thousands of kernel functions, and all off again in one batch.",
    epilog="Exit status: 0 ran and tore down (Ctrl-C included), 1 error, 2 usage or an unreadable "
    "list, 3 nothing attached, 4 something skipped under --strict, 5 teardown incomplete, "
    "77 this machine cannot trace, 128+N ended by signal N before the probes were on. "
    "With -c, the command's own.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def run(stop: Stop) -> int:
    """Run the command line; its exit status."""
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


@app.command()
def attach(
    context: typer.Context,
    lists: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Function lists; - is standard input."),
    ],
    duration: Annotated[
        float | None,
        typer.Option("-d", "--duration", min=0.0, metavar="SECONDS", help="Stop by itself."),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            "-i", "--interval", min=LEAST_INTERVAL, metavar="SECONDS", help="Print new hits."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 if anything was skipped.")
    ] = False,
    abi: Annotated[
        Literal["auto", "multi", "event", "perf"],
        typer.Option(help="Which kernel object carries the probes."),
    ] = "auto",
    placement: Annotated[
        Literal["auto", "entry", "after"],
        typer.Option(help="At a function's entry, or behind its patch site."),
    ] = "auto",
    barrier: Annotated[
        Literal["auto", "expedited", "normal"],
        typer.Option(help="Whether grace periods may be expedited (rcu_expedited)."),
    ] = "auto",
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="N", help="Only the N most hit.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("-c", "--command", metavar="CMD", help="Trace while CMD runs."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the data there."),
    ] = None,
) -> None:
    """Attach a probe to each function of the lists, count their hits, detach all in one batch."""
    options = AttachOptions(
        duration=duration,
        interval=interval,
        as_json=as_json,
        strict=strict,
        abi=abi,
        placement=placement,
        barrier=barrier,
        top=top,
        command=command,
        output=None if output is None else str(output),
    )
    raise typer.Exit(attach_lists(lists, options, context.obj))


@app.command()
def functions(
    what: Annotated[
        list[str],
        typer.Argument(metavar="ENTRY|FILE...", help="Entries, or lists of them; - is stdin."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what would be attached and what skipped, and why. Attaches nothing."""
    from batchprobe.functions.preview import plan  # noqa: PLC0415

    specs: list[ProbeSpec] = []
    for number, word in enumerate(what, 1):
        if word == "-" or Path(word).is_file():
            specs += read_lists([word])
        elif (spec := parse_entry(word, Source("<argument>", number))) is not None:
            specs.append(spec)
    found = plan(specs)
    report = JsonReport(sys.stdout) if as_json else TextReport(sys.stdout, top=None)
    report.resolution(found)
    raise typer.Exit(0 if found.targets else 3)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say what this machine can trace with, and what would mend each lack."""
    from batchprobe.doctor.checks import can_trace, examine  # noqa: PLC0415

    checks = examine()
    if as_json:
        report = JsonReport(sys.stdout)
        for check in checks:
            report.record(
                "check",
                {
                    "name": check.name,
                    "status": check.status.value,
                    "detail": check.detail,
                    "remedy": check.remedy,
                },
            )
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            typer.echo(f"{check.status.value:>7}  {check.name:<{width}}  {check.detail}")
            if check.remedy:
                typer.echo(f"{'':>7}  {'':<{width}}  -> {check.remedy}")
    raise typer.Exit(0 if can_trace(checks) else 77)


@app.command()
def cleanup() -> None:
    """Remove what dead batchprobe processes left: nothing of living ones or of other tools."""
    from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415
    from batchprobe.kernel.host import require_tracing  # noqa: PLC0415
    from batchprobe.kernel.tracefs import Tracefs  # noqa: PLC0415

    require_tracing()
    swept = sweep(Tracefs.find(), patience=2.0)
    for name in swept.events:
        typer.echo(f"removed the trace event {name}")
    if swept.knob_restored:
        typer.echo("restored rcu_expedited")
    if not (swept.events or swept.knob_restored or swept.failed):
        tell("nothing was left behind")
    for failure in swept.failed:
        tell(f"error: {failure}")
    raise typer.Exit(5 if swept.failed else 0)
