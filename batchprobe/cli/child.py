# SPDX-License-Identifier: Apache-2.0
"""The command that `-c` traces."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from batchprobe.errors import UsageError

if TYPE_CHECKING:
    import subprocess

__all__ = ["end_of", "parse_command"]


def parse_command(text: str | None) -> list[str] | None:
    """The words of the command, split as a shell does. Raises UsageError if it cannot be run."""
    if text is None:
        return None
    # Most runs have no command, and start sooner.
    import shlex  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    import subprocess  # noqa: F401, PLC0415  (now, because its import causes hits)

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"-c {text!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"-c {text!r}: no such command")
    return words


def end_of(child: subprocess.Popen[bytes] | None) -> int:
    """The command's exit status as a shell gives it. One that still runs gets SIGTERM."""
    if child is None:
        return 0
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    code = child.wait()
    return 128 - code if code < 0 else code
