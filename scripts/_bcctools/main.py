# SPDX-License-Identifier: Apache-2.0
"""The host's part: boots the guests, keeps their records, and writes the page."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _bcctools.page import Results, page
from _bcctools.tools import TOOLS

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/bcc-tools.md"
_GUESTS = ("debian-12", "debian-13", "debian-13/bookworm")
_SECONDS = 9000


def main() -> int:
    """Run what is asked for and write the page; returns the exit status."""
    # What was measured when the run is interrupted should be as much as possible.
    names = [tool.name for tool in sorted(TOOLS, key=lambda tool: tool.is_slow)]
    parser = argparse.ArgumentParser(
        prog="scripts/bcc-tools",
        description="Run Debian's bcc tools without and with batchprobe, and write "
        "docs/bcc-tools.md. A tool whose record with the same arguments is kept is not run again.",
    )
    parser.add_argument(
        "guests",
        nargs="*",
        default=_GUESTS[:2],
        metavar="KERNEL[/USERSPACE]",
        help="such as debian-12 or debian-13/bookworm (default: %(default)s)",
    )
    parser.add_argument("--tool", action="append", choices=names, help="only this one, again")
    parser.add_argument("--page", action="store_true", help="only write the page")
    asked = parser.parse_args()
    if not asked.page:
        for guest in asked.guests:
            _run(guest, asked.tool or names, again=bool(asked.tool))
    found = [results for guest in _GUESTS if (results := _read(guest)).records]
    PAGE.write_text(page(found))
    return 0


def _run(guest: str, names: Sequence[str], *, again: bool) -> None:
    kept = _read(guest)
    asked = {tool.name: list(tool.arguments) for tool in TOOLS}
    wanted = [name for name in names if again or kept.arguments(name) != asked[name]]
    if not wanted:
        return
    kernel, _, suite = guest.partition("/")
    command = [
        *(CHECKOUT / "scripts/vm", "--kernel", kernel, "--timeout", str(_SECONDS)),
        *(("--userspace", suite) if suite else ()),
        *("--", "env", f"PYTHONPATH={CHECKOUT}/scripts:{CHECKOUT}:/opt/site"),
        *("python3", CHECKOUT / "scripts/_bcctools/guest.py", *wanted),
    ]
    file = _file(guest)
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.open("a") as records,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running,
    ):
        for line in running.stdout or ():
            records.write(line)
            records.flush()
            tool = json.loads(line).get("tool", "the guest is up")
            print(f"bcc-tools: {guest}: {tool}", file=sys.stderr, flush=True)
    if running.returncode:
        sys.exit(running.returncode)


def _file(guest: str) -> Path:
    cache = Path(os.environ.get("BATCHPROBE_CACHE") or Path.home() / ".cache/batchprobe")
    return cache / "bcc-tools" / f"{guest.replace('/', '-')}.ndjson"


def _read(guest: str) -> Results:
    results = Results(guest)
    try:
        lines = _file(guest).read_text().splitlines()
    except FileNotFoundError:
        return results
    for line in lines:
        record: dict[str, Any] = json.loads(line)
        if "tool" in record:
            # The last one counts.
            results.records[record["tool"]] = record
        else:
            results.facts = record
    return results
