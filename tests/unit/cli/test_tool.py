# SPDX-License-Identifier: Apache-2.0
"""Which Python runs a tool, and what is told to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from batchprobe.cli import app
from batchprobe.cli.run import run
from batchprobe.cli.signals import Stop
from batchprobe.cli.tool import find, interpreter, read_plain
from batchprobe.errors import UnsupportedError, UsageError
from batchprobe.filters.children import Children
from batchprobe.filters.netns import NetNamespace
from batchprobe.filters.pid import Pid
from batchprobe.filters.word import from_word


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
        ("run -p 7 x -p 8", "x", ["-p", "8"], {"pid": [7]}),
        (
            "run --pid=7 -p 8 --children --tid 9 x",
            "x",
            [],
            {"pid": [7, 8], "tid": [9], "children": True},
        ),
        (
            "run --comm sh --uid root --uid 0 --cpu 0-3 --cpu 1 x",
            "x",
            [],
            {"comm": ["sh"], "uid": ["root", "0"], "cpu": "1"},
        ),
        (
            "run --cgroup a.slice --unit nginx --netns 1 x",
            "x",
            [],
            {"cgroup": ["a.slice"], "unit": ["nginx"], "netns": ["1"]},
        ),
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
        "run -p",
        "run -p x y",
        "run -p 0 x",
        "run -p7 x",
        "run --children=yes x",
        "run --cpu= x",
        # Options of `attach` only.
        "run -c true x",
        "run -a x",
        "run -d 5 x",
        "run -- x",
    ],
)
def test_typer_looks_at_every_other_line(line: str) -> None:
    assert read_plain(line.split()) is None


class ExecutedError(Exception):
    """Instead of the end of this process."""


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that a command line `run ... TOOL` executes; TOOL is in the current folder."""
    words: list[str] = []

    def execvp(_file: str, arguments: list[str]) -> NoReturn:
        words[:] = arguments
        raise ExecutedError

    monkeypatch.setattr(os, "execvp", execvp)
    for module in ("filters.pid", "filters.children"):
        monkeypatch.setattr(f"batchprobe.{module}.require_initial_pid_namespace", lambda: None)
    (tmp_path / "tool").write_text("#!/opt/python3\n")
    monkeypatch.chdir(tmp_path)
    return words


def told(executed: list[str], line: str) -> list[str]:
    """What the launcher is told by a `run` line."""
    with pytest.raises(ExecutedError):
        run(["run", *line.split()], object.__new__(Stop))
    python, launcher, *options = executed
    assert (python, Path(launcher).name) == ("/opt/python3", "launcher.py")
    return options


def test_without_options_everybody_is_seen(executed: list[str]) -> None:
    auto = ["auto", "auto", "auto"]
    assert told(executed, "./tool x") == [*auto, "loud", "", "./tool", "x"]
    assert told(executed, "-q ./tool -p 1") == [*auto, "quiet", "", "./tool", "-p", "1"]


def test_the_tool_is_told_whose_hits_it_sees(executed: list[str]) -> None:
    me = os.getpid()
    line = f"-p {me} --children --comm sh --uid root ./tool x"
    options = told(executed, line)
    assert options[5:] == ["./tool", "x"]
    pid, comm, uid, children = from_word(options[4])
    assert isinstance(pid, Pid)
    assert isinstance(children, Children)
    assert pid.pids == (me,)
    # Names of users are looked up before.
    assert (comm.name, list(comm.arguments()), list(uid.arguments())) == ("comm", ["sh"], [0])


def test_typer_reads_the_same(executed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", f"-p{os.getpid()}", "--children", "--cpu=0", "--", "./tool", "-p", "1"]
    assert read_plain(words) is None
    monkeypatch.setattr(sys, "argv", ["batchprobe", *words])
    with pytest.raises(ExecutedError):
        app.run(object.__new__(Stop))
    assert executed[2:6] == ["auto", "auto", "auto", "loud"]
    assert executed[7:] == ["./tool", "-p", "1"]
    filters = {one.name: list(one.arguments()) for one in from_word(executed[6])}
    assert filters == {"pid": [os.getpid()], "cpu": [0], "children": []}


def test_a_namespace_is_told_by_its_number(
    executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NetNamespace, "_offsets", {"SCOPE_NETS": 1})
    options = told(executed, f"--netns {os.getpid()} ./tool")
    (netns,) = from_word(options[4])
    assert list(netns.arguments()) == [Path("/proc/self/ns/net").stat().st_ino]


def test_what_the_kernel_lacks_is_an_error_before_the_tool_runs(
    executed: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise UnsupportedError("inside a PID namespace")

    monkeypatch.setattr("batchprobe.filters.pid.require_initial_pid_namespace", refuse)
    line = ["run", "-p", str(os.getpid()), "./tool"]
    assert run(line, object.__new__(Stop)) == UnsupportedError.exit_status
    assert capfd.readouterr().err == "batchprobe: error: inside a PID namespace\n"
    assert executed == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-p 999999999", "--pid 999999999: no such process"),
        ("--tid 999999999", "no such thread"),
        ("--children", "--children: whose? Name a process with -p"),
        ("--uid nobody-knows-them", "no such user"),
        ("--uid 99999999999999999999", "user IDs are numbers from 0"),
        ("--cpu 3-1", "ends before it begins"),
        ("--netns no/such/file", "No such file"),
        ("-p x", "--pid"),
        ("-c true", "no such option: -c"),
    ],
)
def test_what_cannot_be_meant_runs_no_tool(options: str, words: str, tmp_path: Path) -> None:
    tool = tmp_path / "tool.py"
    tool.write_text("print('it runs')\n")
    command = (sys.executable, "-m", "batchprobe", "run", *options.split(), str(tool))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (UsageError.exit_status, "")
    assert words.lower() in done.stderr.lower()
