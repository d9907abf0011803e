# SPDX-License-Identifier: Apache-2.0
"""The command that `-c` traces. Imported before the attach, because an import causes hits."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable

from batchprobe.errors import UsageError
from batchprobe.output.stderr import say

__all__ = ["end_of", "parse_command"]

_OPERATORS = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "&>", "2>&1"})
# An escaped character, and what is between quotes: an argument, whatever it would mean to a shell.
_QUOTED = re.compile(r"\\.|'[^']*'|" r'"(?:\\.|[^"\\])*"', re.DOTALL)


def parse_command(text: str) -> list[str]:
    """The words of the command, split as a shell does. Raises UsageError if it cannot be run.

    Words that would mean something to a shell are legal, and reported.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"-c {text!r}: {error}") from error
    # Other quotes would need to be quoted again.
    shown = "…" if set(text) & set("'\"$`\\") else text
    hint = f"for a shell, write -c \"sh -c '{shown}'\""
    operator = _operator(text)
    if not words or shutil.which(words[0]) is None:
        more = f"; no shell reads it: {hint}" if operator else ""
        raise UsageError(f"-c {text!r}: no such command{more}")
    if operator:
        say(f"-c is not read by a shell, so {operator} is an argument of {words[0]}: {hint}")
    return words


def _operator(text: str) -> str:
    """The first word that a shell would take as an operator; empty if there is none."""
    for word in _QUOTED.sub("_", text).split():
        if word in _OPERATORS:
            return word
        if "|" in word or word[-1] == ";":
            return "|" if "|" in word else ";"
    return ""


def end_of(child: subprocess.Popen[bytes], why: Callable[[], str]) -> int:
    """The command's exit status as a shell gives it. One that still runs gets SIGTERM, and
    the user the reason.
    """
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        say(f"{why()}: batchprobe ends the command with SIGTERM, and exits with its status")
    code = child.wait()
    return 128 - code if code < 0 else code
