# SPDX-License-Identifier: Apache-2.0
"""The guardian's program: waits for the end of its parent, then removes stale objects.

Run as a script. It imports almost nothing at first, because it starts while the parent counts its
first hits; the imports of a clean-up follow when the parent has run for a while, or is dead.
"""

import os
import select
import sys

TYPE_CHECKING = False  # `typing` would take longer to import than all else here
if TYPE_CHECKING:
    from collections.abc import Callable

# Time to wait before the imports of a clean-up, which a short run then never pays for.
_IDLE_SECONDS = 2.0
# A trace event is busy until the kernel has closed the dead parent's perf events.
_PATIENCE_SECONDS = 60.0


def main(parent: int, mode: str, dismissed: str) -> int:
    """Wait until `parent` dies or sends `dismissed` through standard input; returns 0."""
    # Not only for the end of the pipe: a parent may close all its descriptors and live on.
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        parent_fd = -1
    if _parent() != parent:
        # The parent died before pidfd_open, which may have found another process with its PID.
        parent_fd = -1
    watched = [0, parent_fd]
    sweep = None
    while parent_fd >= 0:
        ready, _, _ = select.select(watched, [], [], _IDLE_SECONDS if sweep is None else None)
        if not ready:
            sweep = _load_sweep(mode)
        if 0 in ready:
            if os.read(0, 1).decode() == dismissed:
                return 0
            watched.remove(0)
        if parent_fd in ready:
            break
    (sweep or _load_sweep(mode))()
    return 0


def _parent() -> int:
    # Not getppid(2): the user may be counting hits of it.
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _load_sweep(mode: str) -> "Callable[[], object]":
    """Import all that a sweep needs, and return the sweep."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(0, os.path.dirname(package))
    from batchprobe.cleanup.sweep import sweep  # noqa: PLC0415
    from batchprobe.commit.barrier import BarrierMode  # noqa: PLC0415
    from batchprobe.kernel.tracefs import Tracefs  # noqa: PLC0415

    return lambda: sweep(Tracefs.if_usable(), patience=_PATIENCE_SECONDS, mode=BarrierMode(mode))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
