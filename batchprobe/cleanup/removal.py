# SPDX-License-Identifier: Apache-2.0
"""Removes the remains of kernel objects, in the guardian or where there is none."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from batchprobe.commit.queue import Remains, RemovalFailure
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys import fds

__all__ = ["refusal", "remove"]

# A child process between fork and exec still has a perf fd open.
_BUSY_SECONDS = 1.0
_BUSY_STEP = 0.005


def remove(
    remains: Remains, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> list[RemovalFailure]:
    """Close the descriptors, then run the commands; returns what was refused, which stays in
    `remains`. `progress` is called with the commands that are done, and all.
    """
    open_fds, remains.fds = remains.fds, []
    fds.close_all(open_fds)
    refused: dict[str, RemovalFailure] = {}
    for done, command in enumerate(remains.commands, 1):
        # "-:EVENT PROBE" deletes one probe of an event, "-:EVENT" all.
        is_whole = " " not in command
        failure = _run(command, _BUSY_SECONDS if is_whole else 0.0)
        if is_whole:
            refused = {c: kept for c, kept in refused.items() if not c.startswith(f"{command} ")}
        if failure is not None:
            refused[command] = failure
        progress(done, len(remains.commands))
    remains.commands = list(refused)
    return list(refused.values())


def refusal(command: str, number: int) -> RemovalFailure:
    """The failure of a command, with the kernel's errno."""
    return RemovalFailure(str(KernelError(f"kprobe_events: {command}", number)), number)


def _run(command: str, patience: float) -> RemovalFailure | None:
    deadline = time.monotonic() + patience
    while True:
        try:
            Tracefs.find().command(command)
        except UnsupportedError as error:
            return RemovalFailure(f"{command}: {error}", 0)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                # It was never defined, or another process removed it.
                return None
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return refusal(command, error.errno)
            time.sleep(_BUSY_STEP)
        else:
            return None
