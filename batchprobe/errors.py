"""Every error batchprobe raises, in one tree, each with the exit status the CLI gives it."""

from __future__ import annotations

import errno as errno_module
import os
from typing import ClassVar

__all__ = [
    "AttachCancelledError",
    "BatchprobeError",
    "KernelError",
    "NotAttachedError",
    "NothingAttachedError",
    "SessionError",
    "SpecError",
    "UnsupportedError",
]


class BatchprobeError(Exception):
    """The base of all errors of this package; `exit_status` is what the CLI ends with."""

    exit_status: ClassVar[int] = 1


class SpecError(BatchprobeError):
    """A line of a function list is malformed: nothing was attached."""

    exit_status = 2

    def __init__(self, message: str, *, file: str, line: int, column: int) -> None:
        super().__init__(f"{file}:{line}:{column}: {message}")
        self.message = message
        self.file = file
        self.line = line
        self.column = column


class UnsupportedError(BatchprobeError):
    """This machine, kernel or user cannot trace; `remedy` is what would mend it, if anything."""

    exit_status = 77

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.message = message
        self.remedy = remedy


class NothingAttachedError(BatchprobeError):
    """No entry of the list ended as a probe."""

    exit_status = 3


class NotAttachedError(BatchprobeError):
    """The probe is not attached (never was, or was detached before): nothing was changed."""


class SessionError(BatchprobeError):
    """The session cannot do this now: it is closed, another process's, or inside a commit."""


class AttachCancelledError(BatchprobeError):
    """The caller gave up while probes were being attached: none of them stayed."""


class KernelError(BatchprobeError):
    """A system call failed; `errno` is its error number and `call` what was asked."""

    def __init__(self, call: str, errno: int) -> None:
        name = errno_module.errorcode.get(errno, str(errno))
        super().__init__(f"{call}: {os.strerror(errno)} ({name})")
        self.call = call
        self.errno = errno
