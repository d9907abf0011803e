#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`python -m batchprobe`, and the command that pip installs: a copy of this file."""

from __future__ import annotations

import gc
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
    status = run(sys.argv[1:], stop)
    # Or the interpreter looks for garbage once more when it ends, while the prompt waits for it.
    gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
