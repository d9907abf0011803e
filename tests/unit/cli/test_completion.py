# SPDX-License-Identifier: Apache-2.0
"""A shell is offered the functions that are kept, and files; nothing else is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from recorded import recorded

from batchprobe.cli import app, completion
from batchprobe.cli.signals import Stop
from batchprobe.functions.cache import SymbolCache
from batchprobe.functions.kallsyms import parse_kallsyms


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the symbols of a recorded kernel, in which only `complete` looks."""
    folder = tmp_path / "boot"
    symbols = parse_kallsyms(recorded("debian-12", "kallsyms").decode())
    SymbolCache(folder, lambda: "a boot").symbols(lambda: symbols)
    monkeypatch.setattr(completion, "FOLDER", folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return folder


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("vfs_rea", ["vfs_read", "vfs_readlink", "vfs_readv"]),
        ("vmlinux:vfs_rea", ["vmlinux:vfs_read", "vmlinux:vfs_readlink", "vmlinux:vfs_readv"]),
        ("no_such_module:vfs_rea", []),
        ("vfs_none", []),
        ("", []),
        ("vmlinux:", []),
        ("./vfs_rea", []),
        ("/", []),
        ("~", []),
        ("-", []),
        # Not a pattern.
        ("vfs_rea*", []),
    ],
)
@pytest.mark.usefixtures("kept")
def test_functions(incomplete: str, expected: list[str]) -> None:
    assert completion.complete(incomplete) == expected


@pytest.mark.usefixtures("kept")
def test_files_are_offered_beside_functions() -> None:
    Path("vfs_real.txt").touch()
    Path("vfs_reads").mkdir()
    found = completion.complete("vfs_rea")
    assert found[:1] == ["vfs_read"]
    assert found[-2:] == ["vfs_reads/", "vfs_real.txt"]
    # Alone, the shell completes it better.
    Path("zz_list.txt").touch()
    assert completion.complete("zz_li") == []


def test_data_is_not_offered(kept: Path) -> None:
    assert kept
    assert completion.complete("jiffie") == []


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"12\n5 little xx\0"])
def test_nothing_is_offered_and_said_where_nothing_is_kept(
    content: bytes | None, kept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (kept / "symbols").unlink()
    if content is not None:
        (kept / "symbols").write_bytes(content)
    assert completion.complete("vfs_rea") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["attach", "functions"])
@pytest.mark.usefixtures("kept")
def test_bash_is_answered(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["batchprobe"])
    monkeypatch.setattr(
        os,
        "environ",
        {
            **os.environ,
            "_BATCHPROBE_COMPLETE": "complete_bash",
            "COMP_WORDS": f"batchprobe\n{command}\nvfs_rea",
            "COMP_CWORD": "2",
        },
    )
    assert app.run(object.__new__(Stop)) == 0
    assert capsys.readouterr().out.split() == ["vfs_read", "vfs_readlink", "vfs_readv"]
