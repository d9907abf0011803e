# SPDX-License-Identifier: Apache-2.0
"""Failures of the machine around the command, and their exit statuses."""

from typing import Final

STATUS_SETUP: Final = 121
STATUS_BOOT: Final = 122
STATUS_GONE: Final = 123
STATUS_KILLED: Final = 124
STATUS_PANIC: Final = 125


class VmError(Exception):
    """A failure of the machine around the command, not of the command."""

    def __init__(self, message: str, status: int = STATUS_SETUP) -> None:
        super().__init__(message)
        self.status = status
