# SPDX-License-Identifier: Apache-2.0
"""The errors of this package, and every exit status of the command.

Besides these, ValueError reports a wrong argument, and OSError a file that cannot be read.
"""

from __future__ import annotations

import errno as errno_module
import os
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = [
    "AttachCancelledError",
    "BatchprobeError",
    "ExitStatus",
    "KernelError",
    "ListError",
    "NotAttachedError",
    "NothingAttachedError",
    "SessionError",
    "SpecError",
    "UnsupportedError",
    "UsageError",
    "VerifierError",
    "bcc_is_missing",
    "verifier_log",
    "verifier_reason",
]

# How the lines begin that the verifier writes after the reason (print_verification_stats(),
# kernel/bpf/verifier.c).
_STATISTICS = ("verification time ", "stack depth ", "processed ")


class ExitStatus:
    """What the command ends with. A signal before the probes are on gives 128 + its number."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOTHING_ATTACHED = 3
    SKIPPED = 4
    NOT_REMOVED = 5
    UNSUPPORTED = 77
    SIGNALLED = 128


class BatchprobeError(Exception):
    """The base of all errors of this package; the command ends with `exit_status`."""

    exit_status: ClassVar[int] = ExitStatus.ERROR


class UsageError(BatchprobeError):
    """An option has a value that cannot be used."""

    exit_status = ExitStatus.USAGE


class ListError(BatchprobeError):
    """A function list cannot be read, or names no function."""

    exit_status = ExitStatus.USAGE


class SpecError(BatchprobeError):
    """Lines of a function list are malformed: nothing was attached.

    `line` and `column` count from 1. Where several lines are malformed they are those of the first
    one, and `others` has the errors of the rest.
    """

    exit_status = ExitStatus.USAGE
    _SHOWN = 10

    def __init__(self, message: str, *, file: str, line: int, column: int) -> None:
        super().__init__(f"{file}:{line}:{column}: {message}")
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.others: Sequence[SpecError] = ()

    @classmethod
    def of(cls, errors: Sequence[SpecError]) -> SpecError:
        """One error for these lines, which is the first one with the others noted in it."""
        first, *others = errors
        for error in others:
            error.others = ()
        first.others = others
        return first

    def __str__(self) -> str:
        lines = [super().__str__(), *map(str, self.others[: self._SHOWN - 1])]
        if more := len(self.others) + 1 - len(lines):
            lines.append(f"and {more} more malformed lines")
        return "\n".join(lines)


class UnsupportedError(BatchprobeError):
    """This machine, kernel or user cannot trace; `remedy` says what would change that, if known."""

    exit_status = ExitStatus.UNSUPPORTED

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.message = message
        self.remedy = remedy


def bcc_is_missing(why: str = "") -> UnsupportedError:
    """What to raise where bcc's Python module cannot be imported."""
    return UnsupportedError(
        "bcc's Python module is missing" + (f": {why}" if why else ""),
        remedy="on Debian and Ubuntu: apt install python3-bpfcc; on Fedora: dnf install "
        "python3-bcc; the package named bcc on PyPI is something else; a venv needs "
        "--system-site-packages",
    )


class NothingAttachedError(BatchprobeError):
    """No entry of the list became a probe."""

    exit_status = ExitStatus.NOTHING_ATTACHED


class NotAttachedError(BatchprobeError):
    """The probe is not attached (it never was, or it was detached before): nothing changed."""


class SessionError(BatchprobeError):
    """The session is closed, belongs to another process, or is inside a commit."""


class AttachCancelledError(BatchprobeError):
    """The caller cancelled the attach: no probe stayed."""


class KernelError(BatchprobeError):
    """A system call failed; `call` names it and `errno` is its error number."""

    def __init__(self, call: str, errno: int) -> None:
        name = errno_module.errorcode.get(errno, str(errno))
        super().__init__(f"{call}: {os.strerror(errno)} ({name})")
        self.call = call
        self.errno = errno


class VerifierError(KernelError):
    """The kernel refused to load a program; `log` is the verifier's text, or empty."""

    def __init__(self, call: str, errno: int, log: str) -> None:
        super().__init__(call, errno)
        self.log = log

    @property
    def needs_jit(self) -> bool:
        """Whether the program cannot be interpreted, and the BPF compiler is off or missing."""
        return "JIT" in verifier_reason(self.log)


def verifier_log(error: BaseException | None) -> str:
    """The verifier's log of an error or of its causes; empty if there is none."""
    while error is not None:
        if isinstance(error, VerifierError) and error.log:
            return error.log
        error = error.__cause__
    return ""


def verifier_reason(log: str) -> str:
    """The last line of a verifier's log that is not statistics: why it refused the program."""
    for line in reversed(log.splitlines()):
        if (text := line.strip()) and not text.startswith(_STATISTICS):
            return text
    return ""
