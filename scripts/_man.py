# SPDX-License-Identifier: Apache-2.0
"""scripts/build-man: the manual page, made of the commands that typer makes --help of."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from batchprobe import __version__
from batchprobe.cli.app import app
from batchprobe.cli.args import OPTIONS
from batchprobe.cli.help_text import ENVIRONMENT, EXAMPLES, EXIT_STATUSES, conditions, entries
from batchprobe.functions.cache import FOLDER

_COMMENT = r".\" Written by scripts/build-man: change the help of the command instead."
_FILES = ((FOLDER, "cached kernel symbols and lists, valid until the next boot"),)
# typer's releases word them differently.
_OF_TYPER = {
    "--install-completion": "Install completion for the shell that this is typed in.",
    "--show-completion": "Print what would be installed.",
}
_SPECIAL = {"\\": r"\e", "^": r"\(ha", "~": r"\(ti", "`": r"\(ga", "'": r"\(aq"}


def page() -> str:
    """The whole page, in roff."""
    # Any, because typer's releases differ in where they have click's types.
    group: Any = typer.main.get_command(app)
    commands: list[tuple[str, Any]] = list(group.commands.items())
    lines = [
        _COMMENT,
        f'.TH BATCHPROBE 1 "" "batchprobe {__version__}" "User Commands"',
        ".SH NAME",
        "batchprobe \\- count, measure and trace calls of kernel functions, thousands at a time",
        ".SH SYNOPSIS",
        *_synopsis(commands),
        ".SH DESCRIPTION",
        *_paragraphs(group.help),
        ".SH OPTIONS",
        *_options(group.params),
        ".SH COMMANDS",
    ]
    for name, command in commands:
        lines += [f".SS {_literal(name)}", *_paragraphs(command.help), *_options(command.params)]
    lines += [".SH FUNCTION LISTS"]
    lines += _paragraphs(
        "One entry a line. A # at the start of a line or after white space starts a comment. "
        "An entry is one of these:"
    )
    lines += _table(entries())
    lines += [".SH CONDITIONS"]
    lines += _paragraphs(
        "What --where takes: comparisons of an argument, a member, the result or the duration with "
        "a constant."
    )
    lines += _table(conditions())
    for title, rows in (
        ("EXIT STATUS", EXIT_STATUSES),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", _FILES),
        ("EXAMPLES", EXAMPLES),
    ):
        lines += [f".SH {title}", *_table(rows)]
    lines += [".SH SEE ALSO", ".BR bpf (2),", ".BR sd_notify (3),", ".BR systemd.service (5)"]
    return "\n".join(lines) + "\n"


def _synopsis(commands: Iterable[tuple[str, Any]]) -> Iterator[str]:
    for name, command in commands:
        arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
        words = ["[OPTIONS]", *(f"{metavar}..." for metavar in arguments)]
        yield f".B batchprobe {_literal(name)}"
        yield f"{_literal(' '.join(words))}"
        yield ".br"


def _options(params: Sequence[Any]) -> list[str]:
    """The options of a command, without those that every command has."""
    rows = []
    for param in params:
        if param.param_type_name == "option":
            rows.append((f"{', '.join(param.opts)} {_value(param)}".rstrip(), _meaning(param)))
    return _table(rows)


def _value(param: Any) -> str:
    option = OPTIONS.get(param.name)
    if option is not None and isinstance(option.kind, tuple):
        return "|".join(option.kind)
    return param.metavar or ""


def _meaning(param: Any) -> str:
    option = OPTIONS.get(param.name)
    if option is not None and isinstance(option.kind, tuple):
        return f"{param.help} The default is {option.default}."
    return _OF_TYPER.get(param.opts[0], str(param.help))


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = []
    for word, meaning in rows:
        lines += [".TP", f".B {_literal(word)}", _prose(meaning)]
    return lines


def _paragraphs(text: str) -> list[str]:
    return [line for part in text.split("\n\n") for line in (".PP", _prose(" ".join(part.split())))]


def _literal(text: str) -> str:
    """Text in which every character is as typed."""
    return "".join(_SPECIAL.get(char, char) for char in text).replace("-", r"\-")


def _prose(text: str) -> str:
    """Text with options in it; a line that begins with a period is not a request."""
    escaped = "".join(_SPECIAL.get(char, char) for char in text)
    escaped = re.sub(r"(?<!\w)-", r"\\-", escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
