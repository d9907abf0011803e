# SPDX-License-Identifier: Apache-2.0
"""Reading function lists from files and standard input."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchprobe.errors import ListError, SpecError
from batchprobe.funclist.read import read_arguments


@pytest.fixture
def stdin() -> Iterator[None]:
    """Standard input is a pipe with one entry."""
    before = os.dup(0)
    reader, writer = os.pipe()
    os.write(writer, b"vfs_write\n")
    os.close(writer)
    os.dup2(reader, 0)
    os.close(reader)
    yield
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.usefixtures("stdin")
def test_entries_keep_their_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("# a comment\nvfs_read\n")
    specs = read_arguments([str(file), "-"])
    assert [str(spec.source) for spec in specs] == [f"{file}:2", "<stdin>:1"]


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="absent: No such file") as error:
        read_arguments([str(tmp_path / "absent")])
    assert isinstance(error.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("text", ["", "# vfs_read\n", "!vfs_read\n"])
def test_list_without_a_function(tmp_path: Path, text: str) -> None:
    file = tmp_path / "list"
    file.write_text(text)
    with pytest.raises(ListError, match="no function in it"):
        read_arguments([str(file)])


def test_malformed_entry(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("vfs_read\nvfs read\n")
    with pytest.raises(SpecError, match="list:2:4"):
        read_arguments([str(file)])


def test_arguments_are_entries_or_files(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("vfs_write\n")
    specs = read_arguments(["vfs_read,kprobe:dput", str(file), "tcp_*", "/^ext4_/"])
    assert [(str(spec), str(spec.source)) for spec in specs] == [
        ("vfs_read", "<argument>:1"),
        ("dput", "<argument>:1"),
        ("vfs_write", f"{file}:1"),
        ("tcp_*", "<argument>:3"),
        ("/^ext4_/", "<argument>:4"),
    ]


@pytest.mark.parametrize("word", ["funcs.txt", "lists/funcs", "./funcs", "/absent/funcs.list"])
def test_what_looks_like_a_file_has_to_exist(word: str) -> None:
    with pytest.raises(ListError, match=f"cannot read {word}: No such file"):
        read_arguments([word])


@pytest.mark.parametrize(
    ("word", "own"),
    [
        ("p:grp/ev vfs_read", "vfs_read"),
        ("r8:group/event ext4:ext4_sync_file", "ext4:ext4_sync_file%return"),
        ("/^tcp_/:return", "/^tcp_/%return"),
        ("!/^tcp_/", "!/^tcp_/"),
        ("ext4:/^ext4_/", "ext4:/^ext4_/"),
        ("/^tcp_/ # why", "/^tcp_/"),
    ],
)
def test_entries_with_a_slash_are_no_files(word: str, own: str) -> None:
    assert [str(spec) for spec in read_arguments([word, "vfs_read"])] == [own, "vfs_read"]


@pytest.mark.parametrize("word", ["foo.isra.0", "foo.cold", "foo.part.0.isra.1", "/a/%return"])
def test_names_with_dots_and_regexes_are_entries(word: str) -> None:
    assert [str(spec) for spec in read_arguments([word])] == [word]


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="Is a directory"):
        read_arguments([str(tmp_path)])


def test_a_fifo_is_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        time.sleep(0.2)
        fifo.write_text("vfs_read\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert [str(spec) for spec in read_arguments([str(fifo)])] == ["vfs_read"]
    writer.join()


def test_waiting_for_a_fifo_is_cancelled(tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 3:
            raise CancelledError

    with pytest.raises(CancelledError):
        read_arguments([str(fifo)], check)


def test_malformed_lines_of_all_files_are_reported(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("a b\ne f\n")
    with pytest.raises(SpecError) as caught:
        read_arguments([str(tmp_path / "one"), "c d", str(tmp_path / "two")])
    assert [line.split(": ")[0].rpartition("/")[2] for line in str(caught.value).splitlines()] == [
        *("one:1:2", "one:2:2", "<argument>:2:2", "two:1:2", "two:2:2"),
    ]
