"""The guardian's process: it waits for its parent's end, and removes what a kill left behind.

It is run as a script and imports next to nothing, for it starts beside a run's first hits, which
should have the CPUs. What it may have to do it imports later, or when it has to be done.
"""

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# A short run is over by then.
_BUSY_SECONDS = 2.0
# The kernel closes the dead parent's perf fds, probes and all, before an event can go.
_PATIENCE = 60.0


def main(parent: int, mode: str, dismissed: str) -> int:
    """Wait for the parent's death or dismissal; stdin is a pipe from it."""
    # The pipe alone would not do: a parent may have closed its end with all that it has open.
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        parent_fd = -1
    if _parent() != parent:
        # It died before we asked, and its number may be somebody else's by now.
        parent_fd = -1
    watched = [0, parent_fd]
    sweep = None
    while parent_fd >= 0:
        ready, _, _ = select.select(watched, [], [], _BUSY_SECONDS if sweep is None else None)
        if not ready:
            sweep = _sweep(mode)
        if 0 in ready:
            if os.read(0, 1).decode() == dismissed:
                return 0
            watched.remove(0)
        if parent_fd in ready:
            break
    (sweep or _sweep(mode))()
    return 0


def _parent() -> int:
    # Not getppid(2): a user may be counting that. Nor pathlib, which takes long to import.
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _sweep(mode: str) -> "Callable[[], object]":
    """What removes what was left; it is all imported."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(0, os.path.dirname(package))
    from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415
    from batchprobe.commit.barrier import BarrierMode  # noqa: PLC0415
    from batchprobe.kernel.tracefs import Tracefs  # noqa: PLC0415

    return lambda: sweep(Tracefs.find(), patience=_PATIENCE, mode=BarrierMode(mode))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
