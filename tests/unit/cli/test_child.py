# SPDX-License-Identifier: Apache-2.0
"""The command of -c: its words, and its end."""

from __future__ import annotations

import subprocess

import pytest

from batchprobe.cli.child import end_of, parse_command
from batchprobe.errors import UsageError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ls -l /etc", ["ls", "-l", "/etc"]),
        ("sh -c 'ls | wc'", ["sh", "-c", "ls | wc"]),
        ("cut -d '|' -f 1", ["cut", "-d", "|", "-f", "1"]),
        ("cut -d'|' -f 1", ["cut", "-d|", "-f", "1"]),
        (r'cut -d"\"|" -f 1', ["cut", '-d"|', "-f", "1"]),
        (r"grep -E a\|b file", ["grep", "-E", "a|b", "file"]),
        (r"find . -exec ls {} \;", ["find", ".", "-exec", "ls", "{}", ";"]),
        ("find . -exec ls {} ';'", ["find", ".", "-exec", "ls", "{}", ";"]),
        (r"echo it\'s", ["echo", "it's"]),
    ],
)
def test_a_command_is_split_as_a_shell_does(
    text: str, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert parse_command(text) == words
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "operator", "hint"),
    [
        ("ls | wc", "|", "\"sh -c 'ls | wc'\""),
        ("ls|wc -l", "|", ""),
        ("ls > /tmp/out", ">", "\"sh -c 'ls > /tmp/out'\""),
        ("ls /; ls", ";", "\"sh -c 'ls /; ls'\""),
        (r"ls \' | cat", "|", "\"sh -c '…'\""),
        ("ls 'a b' && ls", "&&", "\"sh -c '…'\""),
    ],
)
def test_what_only_a_shell_understands_is_reported(
    text: str, operator: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if text == "ls|wc -l":
        with pytest.raises(UsageError, match=r"no such command; no shell reads it.*sh -c"):
            parse_command(text)
        return
    parse_command(text)
    said = capfd.readouterr().err
    assert f"-c is not read by a shell, so {operator} is an argument of ls" in said
    assert hint in said


def test_a_command_that_still_runs_is_ended_with_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(("sleep", "1000"))
    assert end_of(child, lambda: "the 2 s of -d are over") == 143
    assert capfd.readouterr().err == (
        "batchprobe: the 2 s of -d are over: batchprobe ends the command with SIGTERM, and exits "
        "with its status\n"
    )


def test_a_command_that_has_ended_needs_no_word(capfd: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(("sh", "-c", "exit 9"))
    child.wait()
    assert end_of(child, str) == 9
    assert capfd.readouterr().err == ""
