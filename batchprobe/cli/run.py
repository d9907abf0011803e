# SPDX-License-Identifier: Apache-2.0
"""From the arguments to a command, and from its error to a message and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from batchprobe._util.gc_pause import gc_pause
from batchprobe.cli.signals import Stop
from batchprobe.errors import BatchprobeError, ExitStatus, UsageError, verifier_log, verifier_reason

__all__ = ["run"]

DEBUG = "BATCHPROBE_DEBUG"
_MAX_LOG_LINES = 40
# `attach` may write to a file, and `cleanup` does more than print.
_WITHOUT_STDOUT = (["attach"], ["cleanup"], ["run"])


def run(arguments: Sequence[str], stop: Stop) -> int:
    """Run the command; returns its exit status."""
    try:
        return _command(arguments, stop)
    except (BatchprobeError, OSError) as error:
        # An OSError is, for example, having no descriptors left for a file of /proc.
        if os.environ.get(DEBUG):
            import traceback  # noqa: PLC0415  (2 ms)

            traceback.print_exception(error)
        # Not at the top: it brings the names of functions with it, which a tool's start is without.
        from batchprobe.output.stderr import say  # noqa: PLC0415

        say(f"error: {error}")
        _say_verifier_log(error, say)
        return error.exit_status if isinstance(error, BatchprobeError) else ExitStatus.ERROR
    finally:
        stop.over()


def _command(arguments: Sequence[str], stop: Stop) -> int:
    # First, because it needs nothing of what follows.
    if list(arguments[:1]) == ["run"]:
        from batchprobe.cli.tool import read_plain, run_tool  # noqa: PLC0415  (one command is run)

        if plain := read_plain(arguments):
            tool, rest, asked = plain
            run_tool(tool, rest, **asked)
    with gc_pause():
        # First, so that an error of what follows can be reported.
        from batchprobe.cli.args import read_usual  # noqa: PLC0415  (errors of it are reported)
        from batchprobe.cli.attach import attach_lists  # noqa: PLC0415
    usual = read_usual(arguments)
    if usual is not None:
        return attach_lists(*usual, stop)
    if sys.stdout is None and list(arguments[:1]) not in _WITHOUT_STDOUT:
        raise UsageError("standard output is closed: nobody would see what the command prints")
    from batchprobe.cli.usage import refuse_plain_faults  # noqa: PLC0415  (most lines are right)

    refuse_plain_faults(arguments)
    from batchprobe.cli import app  # noqa: PLC0415  (typer takes longer to import than an attach)

    return app.run(stop)


def _say_verifier_log(error: BaseException, say: Callable[[str], None]) -> None:
    """Print the end of the verifier's log, if it says more than the error does."""
    log = verifier_log(error).strip()
    lines = log.splitlines()[-_MAX_LOG_LINES:]
    if not lines or (log.startswith(reason := verifier_reason(log)) and reason in str(error)):
        return
    say("the end of the verifier's log:")
    for line in lines:
        say(f"  {line}")
