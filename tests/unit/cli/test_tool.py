# SPDX-License-Identifier: Apache-2.0
"""Which Python runs a tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchprobe.cli.tool import find, interpreter, read_plain
from batchprobe.errors import UsageError


@pytest.mark.parametrize(
    ("name", "first", "words"),
    [
        ("tool", "#!/usr/bin/python3", ["/usr/bin/python3"]),
        ("tool", "#! /usr/bin/python3 -u", ["/usr/bin/python3", "-u"]),
        ("tool", "#!/usr/bin/env python3", ["python3"]),
        ("tool", "#!/usr/bin/env -S python3 -E", ["python3", "-E"]),
        ("tool", "#!/opt/bin/python3.13", ["/opt/bin/python3.13"]),
        ("tool.py", "import bcc", ["/usr/bin/python3"]),
        ("tool.py", "#!", ["/usr/bin/python3"]),
    ],
)
def test_the_interpreter_is_the_tools(
    name: str, first: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(f"{first}\n")
    assert interpreter(str(tmp_path / name)) == words


@pytest.mark.parametrize(
    ("first", "wrong"),
    [
        ("\x7fELF", "names no interpreter"),
        ("#!/bin/bash", "but one of /bin/bash"),
        ("#!/usr/bin/env perl -w", "but one of perl -w"),
        ("#!", "names no interpreter"),
        ("#! /usr/bin/env", "names no interpreter"),
    ],
)
def test_what_is_no_python_script(first: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text(f"{first}\n")
    with pytest.raises(UsageError, match=wrong):
        interpreter(str(tmp_path / "tool"))


def test_a_tool_is_found_under_the_names_of_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="not on PATH"):
        find("funccount")
    tool = tmp_path / "funccount-bpfcc"
    tool.write_text("")
    tool.chmod(0o755)
    assert find("funccount") == find("funccount-bpfcc") == str(tool)
    assert find(str(tool)) == str(tool)
    with pytest.raises(UsageError, match="no such file"):
        find(f"{tool}2")


DEFAULTS = {"abi": "auto", "placement": "auto", "barrier": "auto", "quiet": False}


@pytest.mark.parametrize(
    ("line", "tool", "rest", "asked"),
    [
        ("run funccount vfs_*", "funccount", ["vfs_*"], {}),
        ("run -q trace --abi event", "trace", ["--abi", "event"], {"quiet": True}),
        (
            "run --abi event --barrier=normal x -q",
            "x",
            ["-q"],
            {"abi": "event", "barrier": "normal"},
        ),
        ("run --placement entry ./x", "./x", [], {"placement": "entry"}),
    ],
)
def test_a_plain_line_needs_no_typer(
    line: str, tool: str, rest: list[str], asked: dict[str, object]
) -> None:
    assert read_plain(line.split()) == (tool, rest, DEFAULTS | asked)


@pytest.mark.parametrize(
    "line",
    [
        "attach x",
        "run",
        "run --help",
        "run --abi",
        "run --abi nonsense x",
        "run --abi= x",
        "run --quiet=yes x",
        "run --nonsense x",
        "run -- x",
    ],
)
def test_typer_looks_at_every_other_line(line: str) -> None:
    assert read_plain(line.split()) is None
