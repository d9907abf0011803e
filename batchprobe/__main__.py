#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`python -m batchprobe`, and the command that pip installs: a copy of this file."""

from __future__ import annotations

import sys

from batchprobe._util.gc_pause import gc_pause
from batchprobe.cli.signals import Stop

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit status."""
    # Signals first, because the rest takes a while to import.
    stop = Stop()
    with gc_pause():
        from batchprobe.cli.run import run  # noqa: PLC0415
    return run(sys.argv[1:], stop)


if __name__ == "__main__":
    sys.exit(main())
