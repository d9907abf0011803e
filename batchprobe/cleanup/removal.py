# SPDX-License-Identifier: Apache-2.0
"""Removes the remains of kernel objects, in the guardian or where there is none."""

from __future__ import annotations

from collections.abc import Callable

from batchprobe.commit.queue import Remains, RemovalFailure
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys import fds

__all__ = ["refusal", "remove"]


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
        failure = _delete(command)
        if " " not in command:
            # The whole event: nothing is left to try of its single probes.
            refused = {c: kept for c, kept in refused.items() if not c.startswith(f"{command} ")}
        if failure is not None:
            refused[command] = failure
        progress(done, len(remains.commands))
    remains.commands = list(refused)
    return list(refused.values())


def refusal(command: str, number: int) -> RemovalFailure:
    """The failure of a command, with the kernel's errno."""
    return RemovalFailure(str(KernelError(f"kprobe_events: {command}", number)), number)


def _delete(command: str) -> RemovalFailure | None:
    try:
        Tracefs.find().delete(command)
    except UnsupportedError as error:
        return RemovalFailure(f"{command}: {error}", 0)
    except KernelError as error:
        return refusal(command, error.errno)
    return None
