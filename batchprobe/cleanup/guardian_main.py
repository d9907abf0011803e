# SPDX-License-Identifier: Apache-2.0
"""The guardian's program: removes what its parent hands over, and stale objects when that is dead.

Run as a script. It imports almost nothing at first, because it starts while the parent counts its
first hits; the imports of a clean-up follow when the parent has run for a while, hands something
over, or is dead.
"""

import os
import select
import sys

TYPE_CHECKING = False  # `typing` would take longer to import than all else here
if TYPE_CHECKING:
    from batchprobe.cleanup.guardian_work import GuardianWork

# Time to wait before the imports of a clean-up, which a short run then never pays for.
_IDLE_SECONDS = 2.0
# SCM_MAX_FD, include/net/scm.h
_MOST_FDS = 253
_FD_SIZE = 4


def main(parent: int, mode: str, dismissed: str, more: str, last: str) -> int:
    """Obey the words that come through standard input, a socket, until `parent` dies or sends
    `dismissed`; returns 0.

    With `more` come descriptors to close, with `last` those that `GuardianWork.remove` needs
    besides.
    """
    # Not only for the end of the socket: a parent may close all its descriptors and live on.
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        parent_fd = -1
    if _parent() != parent:
        # The parent died before pidfd_open, which may have found another process with its PID.
        parent_fd = -1
    watched = [0, parent_fd] if parent_fd >= 0 else [0]
    work = None
    received: list[int] = []
    was_refused = False
    while True:
        idle = _IDLE_SECONDS if work is None else None
        ready, _, _ = select.select(watched, [], [], idle if parent_fd >= 0 else 0)
        if 0 in ready:
            # First, because a dead parent may have handed something over.
            word, fds = _receive()
            if word == more:
                received += fds
            elif word == last:
                work = work or _load_work(mode)
                was_refused = not work.remove(received, fds) or was_refused
                received = []
            elif word == dismissed and not was_refused:
                return 0
            elif word in ("", dismissed):
                watched.remove(0)
        elif parent_fd in ready or parent_fd < 0:
            break
        else:
            work = _load_work(mode)
    for fd in received:
        os.close(fd)
    (work or _load_work(mode)).sweep()
    return 0


def _parent() -> int:
    # Not getppid(2): the user may be counting hits of it.
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _receive() -> tuple[str, list[int]]:
    """A word, and the descriptors that came with it; an empty one at the end of the socket."""
    # Not at the top: most guardians receive nothing.
    import resource  # noqa: PLC0415
    from _socket import CMSG_SPACE, socket  # noqa: PLC0415

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    inbox = socket(fileno=0)
    word, messages, _, _ = inbox.recvmsg(1, CMSG_SPACE(_MOST_FDS * _FD_SIZE))
    inbox.detach()
    return word.decode(), [fd for _, _, fds in messages for fd in memoryview(fds).cast("i")]


def _load_work(mode: str) -> "GuardianWork":
    """Import all that a clean-up needs."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(0, os.path.dirname(package))
    from batchprobe.cleanup.guardian_work import GuardianWork  # noqa: PLC0415

    return GuardianWork(mode)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
