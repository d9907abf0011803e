# SPDX-License-Identifier: Apache-2.0
"""What `--help` and the manual page say beside the commands and their options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from batchprobe.actions import condition_parse
from batchprobe.funclist import spec

__all__ = ["ENVIRONMENT", "EXAMPLES", "EXIT_STATUSES", "conditions", "entries", "table"]

EXIT_STATUSES = (
    ("0", "traced and removed everything, also after Ctrl-C; with -c, the command's own status"),
    ("1", "error"),
    ("2", "usage, or an unreadable list"),
    ("3", "nothing attached"),
    ("4", "under --strict: something was skipped, or waited for its module"),
    ("5", "something could not be removed"),
    ("77", "this machine cannot trace"),
    ("128+N", "ended by signal N before the probes were attached; with -c, CMD was ended by it"),
)
"""What the command ends with (`errors.ExitStatus`)."""

ENVIRONMENT = (
    ("BATCHPROBE_DEBUG", "1 prints the traceback of an error"),
    ("BATCHPROBE_COMPILE", "1 compiles the programs with bcc instead of using shipped bytecode"),
    ("NOTIFY_SOCKET", "where READY=1 is sent when the probes count: sd_notify(3)"),
)

EXAMPLES = (
    ("batchprobe attach funcs.txt -d 5", "count hits of the functions in a list for 5 seconds"),
    ("batchprobe attach funcs.txt -c 'ls -l'", "those of a command and its descendants"),
    ("batchprobe attach funcs.txt --unit nginx", "those of a systemd unit, until Ctrl-C"),
    ("batchprobe latency 'vfs_*' -c 'ls -l'", "how long the calls of a command take"),
    ("batchprobe trace -r vfs_read -w 'count > 4k'", "large reads, with arguments and result"),
    ("batchprobe trace 'ext4_*' --errors -d 60", "which of these fail, and with what error"),
    ("batchprobe stacks 'vfs_*' -o vfs.svg", "who calls these, as a flame graph, until Ctrl-C"),
    ("echo 'vfs_*' | batchprobe attach - --top 10", "the ten functions hit most, until Ctrl-C"),
    ("batchprobe functions 'tcp_*' '!tcp_v6_*'", "what these entries mean on this kernel"),
)

_WIDTH = 78
_INDENT = 4


def entries() -> list[tuple[str, str]]:
    """What a line of a function list may be, and its meaning: the table of `funclist.spec`.

    Empty under `python -OO`, which drops docstrings.
    """
    return _rows(spec.__doc__)


def conditions() -> list[tuple[str, str]]:
    """What a condition may be, and its meaning: the table of `actions.condition_parse`."""
    return _rows(condition_parse.__doc__)


def _rows(text: str | None) -> list[tuple[str, str]]:
    """The table in a docstring: its lines that are indented, with two columns."""
    lines = (text or "").splitlines()
    rows = [re.split(r" {3,}", line.strip(), maxsplit=1) for line in lines if line[:1] == " "]
    return [(form, meaning) for form, meaning in rows]


def table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """The rows under a title, in two columns, as a paragraph that typer does not wrap."""
    if not rows:
        return ""
    left = max(len(word) for word, _ in rows) + 2
    lines = ["\b", title]
    for word, meaning in rows:
        first, *more = textwrap.wrap(meaning, _WIDTH - left - _INDENT)
        lines.append(f"{'':{_INDENT}}{word:<{left}}{first}")
        lines += (f"{'':{_INDENT + left}}{line}" for line in more)
    return "\n".join(lines)
