#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From where does a command call these kernel functions?

    stacks.py 'vfs_*' -- ls -lR /etc

Prints folded stacks, the input of flame graph tools. Only calls of the command and of its
descendants count.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from batchprobe import BatchprobeError, Session
from batchprobe.actions.stacks import CallStack, Stacks
from batchprobe.filters.children import Children
from batchprobe.functions.addresses import KernelAddresses
from batchprobe.functions.kernel_symbols import KernelSymbols


def main(arguments: list[str]) -> int:
    """Run the command, then print its stacks; returns the command's exit status."""
    if "--" not in arguments:
        print(__doc__, file=sys.stderr)
        return 2
    at = arguments.index("--")
    entries, command = arguments[:at], arguments[at + 1 :]
    followed = Children()
    with Session(action=Stacks(), filters=[followed]) as session:
        probes = session.attach(entries)
        for skip in session.skipped:
            print(f"skipped {skip}", file=sys.stderr)
        with followed.spawning():
            process = subprocess.Popen(command)
        status = process.wait()
        report = session.detach_all()
        lost = session.lost()
    addresses = KernelAddresses(KernelSymbols().table())
    folded: Counter[str] = Counter()
    for probe in probes:
        for stack, one in probe.value.items():
            folded[";".join(names(stack, addresses))] += one.calls
    for line, calls in folded.most_common():
        print(line, calls)
    print(
        f"{folded.total()} calls from {len(folded)} stacks, {lost} without one; "
        f"{report.probes} probes off with {report.barriers} barrier",
        file=sys.stderr,
    )
    return status


def names(stack: CallStack, addresses: KernelAddresses) -> list[str]:
    """The functions of a stack, the outermost caller first."""
    found = []
    for depth, ip in enumerate(stack.kernel):
        # All but the first are where the callee returns to.
        name = addresses.name(ip, is_return=depth > 0)
        found.append(name.partition("+")[0] or f"{ip:#x}")
    return found[::-1]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BatchprobeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
