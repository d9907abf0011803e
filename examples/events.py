#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which calls of these kernel functions fail in a command, and with which arguments?

    events.py do_sys_openat2 'vfs_*' -- cat /etc/hostname /nonexistent

Only calls of the command and of its descendants count. The kernel decides which of them fail, so
the others are not recorded.
"""

from __future__ import annotations

import subprocess
import sys

from batchprobe import BatchprobeError, Session
from batchprobe.actions.events import CallEvents
from batchprobe.filters.children import Children

SECONDS = 0.1


def main(arguments: list[str]) -> int:
    """Run the command, and print calls as they fail; returns the command's exit status."""
    if "--" not in arguments:
        print(__doc__, file=sys.stderr)
        return 2
    at = arguments.index("--")
    entries, command = arguments[:at], arguments[at + 1 :]
    followed = Children()
    action = CallEvents(where="result < 0")
    with Session(action=action, filters=[followed]) as session:
        probes = session.attach(entries)
        for skip in session.skipped:
            print(f"skipped {skip}", file=sys.stderr)
        with followed.spawning():
            process = subprocess.Popen(command)
        status = None
        while status is None:
            try:
                status = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                show(session)
        report = session.detach_all()
        # Every event has been delivered now.
        show(session)
    counts = [probe.value for probe in probes]
    print(
        f"{sum(one.emitted for one in counts)} calls failed, "
        f"{sum(one.unwanted for one in counts)} did not, "
        f"{sum(one.lost + one.missed + one.unfinished for one in counts)} are unknown; "
        f"{report.probes} probes off with {report.barriers} barrier",
        file=sys.stderr,
    )
    return status


def show(session: Session) -> None:
    """Print the events since the last call."""
    for event in session.events():
        print(event.probe.label, event.fields)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BatchprobeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
