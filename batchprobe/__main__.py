"""`python -m batchprobe`, and the console script."""

from __future__ import annotations

import sys

from batchprobe.cli.signals import Stop

__all__ = ["main"]


def main() -> int:
    """Run the command; its exit status."""
    # Signals first: the rest takes a while to import.
    stop = Stop()
    from batchprobe._util import gc_pause  # noqa: PLC0415

    with gc_pause.held():
        from batchprobe.errors import BatchprobeError  # noqa: PLC0415
        from batchprobe.output.text import tell  # noqa: PLC0415

    try:
        return _run(stop)
    except BatchprobeError as error:
        tell(f"error: {error}")
        return error.exit_status
    except OSError as error:
        # Say, no descriptors or no memory for a file of /proc or a child process.
        tell(f"error: {error}")
        return 1
    finally:
        stop.over()


def _run(stop: Stop) -> int:
    from batchprobe._util import gc_pause  # noqa: PLC0415

    with gc_pause.held():
        from batchprobe.cli.args import read_usual  # noqa: PLC0415
        from batchprobe.cli.attach import attach_lists  # noqa: PLC0415
    usual = read_usual(sys.argv[1:])
    if usual is not None:
        return attach_lists(*usual, stop)
    from batchprobe.cli.app import run  # noqa: PLC0415

    return run(stop)


if __name__ == "__main__":
    sys.exit(main())
