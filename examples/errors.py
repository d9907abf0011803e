#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which errors do these kernel functions return while a command runs, and to whom last?

    errors.py 'vfs_*' 'ext4_*' -- cp /etc/passwd /full/disk

Says each second what is new, and at the end everything. Calls of the whole machine count: whoever
fills a disk need not be the one who notices.
"""

from __future__ import annotations

import subprocess
import sys

from batchprobe import BatchprobeError, Probe, Session
from batchprobe.actions.errors import Errors, Failures

SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Run the command, and print the errors; returns the command's exit status."""
    if "--" not in arguments:
        print(__doc__, file=sys.stderr)
        return 2
    at = arguments.index("--")
    entries, command = arguments[:at], arguments[at + 1 :]
    with Session(action=Errors()) as session:
        probes = session.attach(entries)
        for skip in session.skipped:
            print(f"skipped {skip}", file=sys.stderr)
        process = subprocess.Popen(command)
        before: dict[Probe, Failures] = {}
        status = None
        while status is None:
            try:
                status = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                now = session.snapshot()
                for probe, failures in now.items():
                    new = failures - before[probe] if probe in before else failures
                    show("new", probe, new)
                before = now
        report = session.detach_all()
        lost = session.lost()
    for probe in probes:
        show("all", probe, probe.value)
    print(
        f"{lost} errors without room; {report.probes} probes off with {report.barriers} barrier",
        file=sys.stderr,
    )
    return status


def show(which: str, probe: Probe, failures: Failures) -> None:
    """Print the errors of one function."""
    for name, one in sorted(failures.items()):
        print(which, one.count, name, probe.label, f"last {one.comm} {one.pid}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BatchprobeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
