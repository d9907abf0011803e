# SPDX-License-Identifier: Apache-2.0
"""`batchprobe run`: becomes a bcc tool, under the Python that the tool asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from batchprobe.cli.args import OPTIONS, SCOPE, AttachOptions, Option, converted, walk
from batchprobe.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["QUIET", "SHARED_OPTIONS", "find", "interpreter", "read_plain", "run_tool"]

_ALWAYS = ("abi", "placement", "barrier")
SHARED_OPTIONS = {
    name: option for name, option in OPTIONS.items() if name in (*_ALWAYS, "children", *SCOPE)
}
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
    names = {option: name for name, option in SHARED_OPTIONS.items()}
    asked: dict[str, Any] = {name: SHARED_OPTIONS[name].default for name in _ALWAYS}
    asked["quiet"] = False
    words = iter(arguments[1:])
    for word, option, value in walk(words):
        if option in names:
            name, given = names[option], _given(option, value)
            if given is None:
                return None
            asked[name] = [*asked.get(name, ()), given] if option.repeats else given
        elif word in QUIET:
            asked["quiet"] = True
        elif word.startswith("-"):
            return None
        else:
            return word, list(words), asked
    return None


def _given(option: Option, value: str | None) -> object:
    """The value of an option; None if typer has to look at it."""
    if option.kind is bool:
        return True if value is None else None
    return converted(value or "", option)


def run_tool(
    tool: str,
    arguments: Sequence[str],
    *,
    abi: str,
    placement: str,
    barrier: str,
    quiet: bool,
    **scope: Any,
) -> NoReturn:
    """Replace this process by the tool; `scope` are options that say whose hits it sees.

    Raises UsageError if there is no such Python script, or for options that cannot be meant,
    UnsupportedError where the kernel cannot do what they ask, OSError if the tool cannot be
    executed.
    """
    path = find(tool)
    python = interpreter(path)
    loudness = "quiet" if quiet else "loud"
    options = (abi, placement, barrier, loudness, _scope_word(AttachOptions(**scope)))
    os.execvp(  # noqa: S606  (no shell is wanted)
        python[0], [*python, _LAUNCHER, *options, path, *arguments]
    )


def _scope_word(options: AttachOptions) -> str:
    """Whose hits the tool sees, as the launcher takes it. Names are looked up here, because the
    tool's Python may lack what that needs.
    """
    if not options.narrows:
        return ""
    from batchprobe.cli.scope import Scope  # noqa: PLC0415  (most tools see everybody's hits)
    from batchprobe.filters.word import as_word  # noqa: PLC0415  (as above)

    with Scope(options) as scope:
        for one in scope.filters:
            # What the kernel lacks is an error here. In the tool it would be one of its attaches.
            one.constants()
            one.sets()
        return as_word(scope.filters)


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
