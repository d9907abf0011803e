#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`python -m batchprobe`, and the command that pip installs: a copy of this file."""

from __future__ import annotations

import atexit
import os
import sys

from batchprobe._util.gc_pause import gc_pause
from batchprobe.cli.signals import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["leave", "main"]


def main() -> int:
    """Run the command; returns its exit status."""
    _fill_standard_descriptors()
    # Signals first, because the rest takes a while to import.
    stop = Stop()
    with gc_pause():
        from batchprobe.cli.run import run  # noqa: PLC0415
    return run(sys.argv[1:], stop)


def leave(status: int) -> NoReturn:
    """End the process. The interpreter would free 40,000 probes one by one, and look for garbage
    among them, while the prompt waits.
    """
    atexit._run_exitfuncs()  # what is not removed is tried again
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        # The interpreter knows what to say of that.
        sys.exit(status)
    # What shares our descriptors for a moment must not hold up who reads our output.
    os.closerange(0, 3)
    os._exit(status)


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
    leave(main())
