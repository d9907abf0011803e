# SPDX-License-Identifier: Apache-2.0
"""`batchprobe run`: becomes a bcc tool, under the Python that the tool asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from batchprobe.cli.args import OPTIONS, converted, walk
from batchprobe.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["QUIET", "SHARED_OPTIONS", "find", "interpreter", "read_plain", "run_tool"]

SHARED_OPTIONS = ("abi", "placement", "barrier")
"""Of `attach`, and of `run`."""
QUIET = ("-q", "--quiet")

_LAUNCHER = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bcc", "launcher.py"
)
_DEFAULT_PYTHON = "/usr/bin/python3"
# Where distributions put bcc's tools beside PATH, or under which name.
_OTHER_NAMES = ("{}-bpfcc", "/usr/share/bcc/tools/{}", "/usr/sbin/{}-bpfcc")
_MAX_LINE = 4096


def read_plain(arguments: Sequence[str]) -> tuple[str, list[str], dict[str, Any]] | None:
    """The tool, its arguments and the options of a `run` line, as `run_tool` takes them.

    None for every line that is not plainly right: typer looks at it.
    """
    if list(arguments[:1]) != ["run"]:
        return None
    names = {OPTIONS[name]: name for name in SHARED_OPTIONS}
    asked: dict[str, Any] = {name: OPTIONS[name].default for name in SHARED_OPTIONS}
    asked["quiet"] = False
    words = iter(arguments[1:])
    for word, option, value in walk(words):
        if option in names:
            given = converted(value or "", option)
            if given is None:
                return None
            asked[names[option]] = given
        elif word in QUIET:
            asked["quiet"] = True
        elif word.startswith("-"):
            return None
        else:
            return word, list(words), asked
    return None


def run_tool(
    tool: str, arguments: Sequence[str], *, abi: str, placement: str, barrier: str, quiet: bool
) -> NoReturn:
    """Replace this process by the tool. Raises UsageError if there is no such Python script,
    OSError if it cannot be executed.
    """
    path = find(tool)
    options = (abi, placement, barrier, "quiet" if quiet else "loud")
    python = interpreter(path)
    os.execvp(  # noqa: S606  (no shell is wanted)
        python[0], [*python, _LAUNCHER, *options, path, *arguments]
    )


def find(tool: str) -> str:
    """The path of a tool that the user named. Raises UsageError if there is none."""
    if os.path.dirname(tool):
        if not os.path.isfile(tool):
            raise UsageError(f"{tool}: no such file")
        return tool
    import shutil  # noqa: PLC0415  (it imports compressors; few tools are found here)

    for name in (tool, *(other.format(tool) for other in _OTHER_NAMES)):
        if found := shutil.which(name):
            return found
    raise UsageError(
        f"{tool} is not on PATH (on Debian and Ubuntu bcc's tools are in the package bpfcc-tools, "
        "on Fedora in bcc-tools)"
    )


def interpreter(path: str) -> list[str]:
    """The Python that the script's first line names, with its options.

    Raises UsageError if that is no Python.
    """
    with open(path, "rb") as file:
        first = file.readline(_MAX_LINE)
    words = os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S"]
    if not words:
        if path.endswith(".py"):
            return [_DEFAULT_PYTHON]
        raise UsageError(f"{path} is no Python script: its first line names no interpreter")
    if not os.path.basename(words[0]).startswith("python"):
        raise UsageError(f"{path} is no Python script, but one of {' '.join(words)}")
    return words
