# SPDX-License-Identifier: Apache-2.0
"""Whether guardians remove objects for processes that did not wait for it."""

from __future__ import annotations

import fcntl
import os
from os import PathLike

from batchprobe.sys.files import RUN_FOLDER, open_shared

__all__ = ["begin", "is_ongoing"]

_RECORD = "removals"


def begin(folder: str | PathLike[str] = RUN_FOLDER) -> int:
    """Return a descriptor: a removal is ongoing until every copy of it is closed.

    Raises OSError.
    """
    fd = open_shared(_RECORD, folder)
    try:
        # A lock belongs to the open file, so it goes with the descriptor to another process, and
        # away with the last one.
        fcntl.flock(fd, fcntl.LOCK_SH)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_ongoing(folder: str | PathLike[str] = RUN_FOLDER) -> bool:
    """Whether any removal is ongoing."""
    try:
        fd = os.open(f"{folder}/{_RECORD}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # There was none, or this user may not look.
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
