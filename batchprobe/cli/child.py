# SPDX-License-Identifier: Apache-2.0
"""The command that `-c` traces. Imported before the attach, because an import causes hits."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess

from batchprobe.errors import UsageError

__all__ = ["end_of", "parse_command"]


def parse_command(text: str) -> list[str]:
    """The words of the command, split as a shell does. Raises UsageError if it cannot be run."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"-c {text!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"-c {text!r}: no such command")
    return words


def end_of(child: subprocess.Popen[bytes]) -> int:
    """The command's exit status as a shell gives it. One that still runs gets SIGTERM."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    code = child.wait()
    return 128 - code if code < 0 else code
