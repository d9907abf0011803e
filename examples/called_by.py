#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which of these kernel functions are called while a command runs?

    called_by.py 'ext4_*' 'vfs_*' -- cp -r /etc /tmp/copy

Calls of other processes count too, so an idle machine gives the best answer.
"""

import subprocess
import sys

from batchprobe import BatchprobeError, Session


def main() -> int:
    if "--" not in sys.argv:
        print(__doc__, file=sys.stderr)
        return 2
    split = sys.argv.index("--")
    entries, command = sys.argv[1:split], sys.argv[split + 1 :]
    with Session() as session:
        probes = session.attach(entries)
        for skip in session.skipped:
            print(f"skipped {skip}", file=sys.stderr)
        status = subprocess.call(command)
        report = session.detach_all()
    called = sorted((probe for probe in probes if probe.count), key=lambda probe: -probe.count)
    for probe in called:
        print(f"{probe.count:>10}  {probe.label}")
    print(
        f"{len(called)} of {len(probes)} functions were called; "
        f"{report.probes} probes off with {report.barriers} barrier",
        file=sys.stderr,
    )
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BatchprobeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
