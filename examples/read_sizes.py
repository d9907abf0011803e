#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many bytes do programs ask these functions for? A bcc program on all of them at once.

    read_sizes.py FUNCTION... -- COMMAND...

Each function's third argument is the size, as with vfs_read, vfs_write and kernel_read.
"""

from __future__ import annotations

import subprocess
import sys

from bcc import BPF

from batchprobe import Session

TEXT = b"""
#include <uapi/linux/ptrace.h>

BPF_HISTOGRAM(sizes);

int requested(struct pt_regs *ctx)
{
    sizes.increment(bpf_log2l(PT_REGS_PARM3(ctx)));
    return 0;
}
"""


def main(arguments: list[str]) -> int:
    """Run the command, then print a histogram; returns the command's exit status."""
    if "--" not in arguments:
        print(__doc__, file=sys.stderr)
        return 2
    at = arguments.index("--")
    b = BPF(text=TEXT)
    with Session() as session:
        session.attach(arguments[:at], program=b.load_func(b"requested", BPF.KPROBE))
        status = subprocess.run(arguments[at + 1 :], check=False).returncode
        report = session.detach_all()
    b[b"sizes"].print_log2_hist("bytes")
    print(f"{report.probes} probes off with {report.barriers} barrier", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
