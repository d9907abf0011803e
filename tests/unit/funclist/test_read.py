# SPDX-License-Identifier: Apache-2.0
"""Reading function lists from files and standard input."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchprobe.errors import ListError, SpecError
from batchprobe.funclist.read import read_lists


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"vfs_write\n")))


@pytest.mark.usefixtures("stdin")
def test_entries_keep_their_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("# a comment\nvfs_read\n")
    assert [str(spec.source) for spec in read_lists([str(file), "-"])] == [f"{file}:2", "<stdin>:1"]


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="absent: No such file") as error:
        read_lists([str(tmp_path / "absent")])
    assert isinstance(error.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("text", ["", "# vfs_read\n", "!vfs_read\n"])
def test_list_without_a_function(tmp_path: Path, text: str) -> None:
    file = tmp_path / "list"
    file.write_text(text)
    with pytest.raises(ListError, match="no function in it"):
        read_lists([str(file)])


def test_malformed_entry(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("vfs_read\nvfs read\n")
    with pytest.raises(SpecError, match="list:2:4"):
        read_lists([str(file)])
