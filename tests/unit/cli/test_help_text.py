# SPDX-License-Identifier: Apache-2.0
"""Help names the command as it is typed, and has what a user needs to write a list."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from batchprobe.actions.condition_parse import parse
from batchprobe.cli import app, help_text
from batchprobe.cli.signals import Stop
from batchprobe.errors import ExitStatus
from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import Source

README = Path(__file__).resolve().parents[3] / "README.md"


def printed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    # As `python -m batchprobe` has it.
    monkeypatch.setattr(sys, "argv", ["/usr/lib/batchprobe/__main__.py", *line.split()])
    assert app.run(object.__new__(Stop)) == ExitStatus.OK
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["", "attach", "latency", "trace", "stacks", "functions", "run", "doctor", "cleanup"]
)
def test_usage_names_the_command_as_typed(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(f"{command} --help", monkeypatch, capsys)
    assert text.splitlines()[0].startswith(f"Usage: batchprobe {command}".rstrip())
    assert "__main__" not in text
    assert "python" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_no_argument_prints_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed("", monkeypatch, capsys)
    assert text == printed("--help", monkeypatch, capsys)
    for number, meaning in help_text.EXIT_STATUSES:
        assert f" {number} " in text
        assert meaning.split()[0] in text
    # Commands are explained by whole sentences.
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("command", ["attach", "functions"])
def test_help_explains_entries(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(f"{command} --help", monkeypatch, capsys)
    for form, meaning in help_text.entries():
        assert form in text
        assert meaning.split()[0] in text


def test_the_forms_of_an_entry_are_entries() -> None:
    table = help_text.entries()
    assert len(table) >= 9
    for form, meaning in table:
        assert meaning
        for entry in form.split():
            assert parse_line(entry, Source("the table", 1))


def test_the_forms_of_a_condition_are_conditions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = help_text.conditions()
    assert len(table) >= 9
    text = printed("trace --help", monkeypatch, capsys)
    for form, meaning in table:
        assert str(parse(form))
        assert form in text
        assert meaning.split()[0] in text


def test_exit_statuses_are_those_of_the_package() -> None:
    shown = [int(number) for number, _ in help_text.EXIT_STATUSES[:-1]]
    known = [value for name, value in vars(ExitStatus).items() if name.isupper()]
    assert [*shown, ExitStatus.SIGNALLED] == known
    assert help_text.EXIT_STATUSES[-1][0] == f"{ExitStatus.SIGNALLED}+N"


def test_the_readme_has_the_same_exit_statuses() -> None:
    lines = README.read_text().replace("`", "").splitlines()
    begin = lines.index("| exit status | |") + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[begin:])
    assert [tuple(row.strip("| ").split(" | ")) for row in rows] == list(help_text.EXIT_STATUSES)


def test_a_table_is_wrapped_beside_its_first_column() -> None:
    text = help_text.table("Title:", [("a", "word " * 30), ("longer", "b")])
    mark, title, *lines = text.splitlines()
    assert (mark, title) == ("\b", "Title:")
    assert lines[0].startswith("    a       word")
    assert lines[1].startswith("            word")
    assert lines[-1] == "    longer  b"
    assert help_text.table("Title:", []) == ""
