"""`python -m batchprobe`, and the console script."""

from __future__ import annotations

import sys

from batchprobe.signals import Stop

__all__ = ["main"]


def main() -> int:
    """Run the command; its exit status."""
    # Signals first: the rest takes a while to import.
    stop = Stop()
    from batchprobe.cli import run  # noqa: PLC0415

    return run(stop)


if __name__ == "__main__":
    sys.exit(main())
