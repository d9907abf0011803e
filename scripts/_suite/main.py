# SPDX-License-Identifier: Apache-2.0
"""scripts/test, from the command line to the exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from _suite import architectures, plan, run
from _suite.plan import Step
from _suite.request import Form, Request, UsageError, parse
from _suite.verdict import failure

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDS = CHECKOUT / ".cache/architectures"
PAGE = CHECKOUT / "docs/architectures.md"
# tests/kernel/helpers/figures.py reads it.
_RECORDS_VARIABLE = "BATCHPROBE_RECORDS"

_FAILED = 1
_USAGE = 2


def usage() -> str:
    """The comment at the top of scripts/test."""
    lines = (CHECKOUT / "scripts/test").read_text().splitlines()[1:]
    comment = lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in comment)


def main(arguments: Sequence[str]) -> int:
    """Run the tests; the exit status."""
    if arguments and arguments[0] in {"-h", "--help"}:
        print(usage())
        return 0
    try:
        request = parse(arguments)
    except UsageError as error:
        print(str(error) or usage(), file=sys.stderr)
        return _USAGE
    os.chdir(CHECKOUT)
    try:
        with run.interruptible():
            return _run(request)
    except run.Interrupted as interrupted:
        return interrupted.status


def _run(request: Request) -> int:
    judge = partial(failure, is_selected=bool(request.pytest))
    planned = plan.steps(request)
    failed: list[str] = []

    def here(name: str) -> None:
        for command in _commands((s for s in planned if s.name == name), request):
            if not run.foreground(command, judge):
                failed.append(command.name)

    here("unit")
    if plan.needs_guests(planned):
        ready = subprocess.run([CHECKOUT / "scripts/bootstrap", "vm"], check=False)
        if ready.returncode:
            return ready.returncode
    here("vm")
    if request.form is Form.ARCH:
        RECORDS.mkdir(parents=True, exist_ok=True)
        os.environ[_RECORDS_VARIABLE] = str(RECORDS)
    booted = [step for step in planned if step.target]
    alone = _commands((step for step in booted if step.is_alone), request)
    together = _commands((step for step in booted if not step.is_alone), request)
    failed += run.guests(alone, 1, judge)
    failed += run.guests(together, len(os.sched_getaffinity(0)), judge)
    if request.form is Form.ARCH and not _page():
        failed.append("page")
    if failed:
        print(f"failed: {' '.join(failed)}", file=sys.stderr)
        return _FAILED
    return 0


def _commands(steps: Iterable[Step], request: Request) -> list[run.Command]:
    return [
        run.Command(step.name, step.command(sys.executable, CHECKOUT, request)) for step in steps
    ]


def _page() -> bool:
    """Write docs/architectures.md; whether there was anything to write."""
    table = architectures.table(architectures.read(RECORDS))
    if not table:
        print(f"{RECORDS} has no complete record: docs/architectures.md stays", file=sys.stderr)
        return False
    PAGE.write_text(architectures.inserted(PAGE.read_text(), table))
    print(table)
    return True
