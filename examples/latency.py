#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""In which of these kernel functions does a command spend its time?

    latency.py 'vfs_*' 'ext4_*' -- tar cf /tmp/etc.tar /etc

Only calls of the command and of its descendants count. SELF is the time of a call less that in
others of these functions that it called.
"""

from __future__ import annotations

import subprocess
import sys

from batchprobe import BatchprobeError, Session
from batchprobe.actions.latency import Latency, shown_time
from batchprobe.filters.children import Children

MOST = 20


def main(arguments: list[str]) -> int:
    """Run the command, then print the slowest functions; returns the command's exit status."""
    if "--" not in arguments:
        print(__doc__, file=sys.stderr)
        return 2
    at = arguments.index("--")
    entries, command = arguments[:at], arguments[at + 1 :]
    followed = Children()
    with Session(action=Latency(), filters=[followed]) as session:
        probes = session.attach(entries)
        for skip in session.skipped:
            print(f"skipped {skip}", file=sys.stderr)
        with followed.spawning():
            process = subprocess.Popen(command)
        status = process.wait()
        report = session.detach_all()
    called = [probe for probe in probes if probe.value.calls]
    called.sort(key=lambda probe: -probe.value.self_ns)
    print(f"{'CALLS':>8}  {'SELF':>8}  {'AVERAGE':>8}  {'99 %':>8}  FUNCTION")
    for probe in called[:MOST]:
        times = probe.value
        shown = [shown_time(ns) for ns in (times.self_ns, times.average_ns, times.quantile(0.99))]
        print(f"{times.calls:>8}", *(f"{text:>8}" for text in shown), probe.label, sep="  ")
    unfinished = sum(probe.value.unfinished + probe.value.missed for probe in probes)
    print(
        f"{len(called)} of {len(probes)} functions were called, {unfinished} calls did not return; "
        f"{report.probes} probes off with {report.barriers} barrier",
        file=sys.stderr,
    )
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BatchprobeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
