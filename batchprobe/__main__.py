#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`python -m batchprobe`, and the command that pip installs: a copy of this file."""

from __future__ import annotations

import gc
import os
import sys

from batchprobe._util.gc_pause import gc_pause
from batchprobe.cli.signals import Stop

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit status."""
    _fill_standard_descriptors()
    # Signals first, because the rest takes a while to import.
    stop = Stop()
    with gc_pause():
        from batchprobe.cli.run import run  # noqa: PLC0415
    status = run(sys.argv[1:], stop)
    # Or the interpreter looks for garbage once more when it ends, while the prompt waits for it.
    gc.freeze()
    return status


def _fill_standard_descriptors() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed, before anything else is opened: messages
    are written to 2, and would otherwise go into a pipe or map of ours that got this number.

    `sys.stdout` stays None, because results have to go somewhere: `attach` refuses that.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free, so this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  (as long as the process)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
