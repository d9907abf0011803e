# SPDX-License-Identifier: Apache-2.0
"""A tree of processes, from messages and from a folder like /proc."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from batchprobe.cli.family import Family


class Proc:
    """A folder like /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, pid: int, parent: int, comm: str, *, state: str = "S", code: int = 0) -> None:
        folder = self.folder / str(pid)
        folder.mkdir(exist_ok=True)
        # The fields between are 0.
        (folder / "stat").write_text(f"{pid} ({comm}) {state} {parent} {'0 ' * 47}{code}\n")
        (folder / "comm").write_text(f"{comm}\n")

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.folder / str(pid))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path)
    (tmp_path / "self").mkdir()
    made.put(1, 0, "init")
    made.put(10, 1, "sh")
    made.put(20, 1, "other")
    return made


def tree(proc: Proc, *roots: int, most: int = 100) -> Family:
    made = Family(roots, most=most, proc=proc.folder)
    made.look()
    return made


def seen(tree: Family) -> list[tuple[int, int, str, int | str | None]]:
    """Of each process: number, parent, name, and its status if it ended."""
    return [
        (one.pid, one.parent, one.comm, one.status if one.has_ended else "runs")
        for one in tree.processes()
    ]


def test_descendants_are_followed_and_no_others(proc: Proc) -> None:
    processes = tree(proc, 10)
    processes.forked(10, 11)
    processes.forked(11, 12)
    processes.forked(20, 21)
    proc.put(12, 11, "make")
    processes.executed(12)
    processes.executed(21)
    assert seen(processes) == [
        (10, 1, "sh", "runs"),
        (11, 10, "sh", "runs"),
        (12, 11, "make", "runs"),
    ]
    processes.exited(12, 12, 2 << 8)
    processes.exited(11, 11, 15)
    processes.exited(21, 21, 0)
    assert seen(processes) == [(10, 1, "sh", "runs"), (11, 10, "sh", 143), (12, 11, "make", 2)]


@pytest.mark.parametrize(
    ("code", "status"), [(0, 0), (1 << 8, 1), (255 << 8, 255), (9, 137), (11 | 0x80, 139)]
)
def test_the_status_is_a_shells(proc: Proc, code: int, status: int) -> None:
    processes = tree(proc, 10)
    processes.exited(10, 10, code)
    assert seen(processes) == [(10, 1, "sh", status)]


def test_names(proc: Proc) -> None:
    proc.put(10, 1, "a) S (b")
    processes = tree(proc, 10)
    assert seen(processes) == [(10, 1, "a) S (b", "runs")]
    proc.put(10, 1, "renamed")
    processes.renamed(10)
    assert seen(processes) == [(10, 1, "renamed", "runs")]
    proc.remove(10)
    # Too late to read a name: the last one holds, but it is not that of another program.
    processes.renamed(10)
    assert seen(processes) == [(10, 1, "renamed", "runs")]
    processes.executed(10)
    assert seen(processes) == [(10, 1, "", "runs")]


def test_a_thread_that_ends_ends_no_process(proc: Proc) -> None:
    processes = tree(proc, 10)
    processes.exited(15, 10, 0)
    assert seen(processes) == [(10, 1, "sh", "runs")]


def test_the_last_thread_has_the_status(proc: Proc) -> None:
    """The first thread may end before the others, which may still have children."""
    processes = tree(proc, 10)
    processes.exited(10, 10, 0)
    processes.forked(10, 11)
    processes.exited(15, 10, 3 << 8)
    assert seen(processes) == [(10, 1, "sh", 3), (11, 10, "sh", "runs")]


def test_another_thread_may_execute_a_program(proc: Proc) -> None:
    """It ends the first one, whose number it takes."""
    processes = tree(proc, 10)
    processes.exited(10, 10, 9)
    processes.executed(10)
    assert seen(processes) == [(10, 1, "sh", "runs")]
    processes.exited(10, 10, 0)
    assert seen(processes) == [(10, 1, "sh", 0)]


def test_a_number_may_be_given_away_again(proc: Proc) -> None:
    processes = tree(proc, 10)
    processes.forked(10, 11)
    processes.exited(11, 11, 0)
    processes.forked(20, 11)
    processes.forked(11, 12)
    processes.exited(11, 11, 1 << 8)
    assert seen(processes) == [(10, 1, "sh", "runs"), (11, 10, "sh", 0)]
    processes.forked(10, 12)
    processes.exited(12, 12, 0)
    processes.forked(10, 12)
    assert seen(processes)[2:] == [(12, 10, "sh", 0), (12, 10, "sh", "runs")]
    # A root is one process, not all that have its number.
    processes.exited(10, 10, 0)
    processes.forked(20, 10)
    processes.look()
    assert [pid for pid, *_ in seen(processes)].count(10) == 1


def test_a_look_finds_what_was_not_reported(proc: Proc) -> None:
    processes = tree(proc, 10)
    processes.forked(10, 11)
    processes.forked(10, 12)
    proc.put(12, 10, "sh")
    proc.put(13, 12, "cc")
    proc.put(14, 13, "as")
    proc.put(22, 20, "other")
    processes.look()
    assert seen(processes) == [
        (10, 1, "sh", "runs"),
        (11, 10, "sh", None),
        (12, 10, "sh", "runs"),
        (13, 12, "cc", "runs"),
        (14, 13, "as", "runs"),
    ]
    # Messages that the look was ahead of.
    processes.forked(12, 13)
    processes.exited(11, 11, 0)
    assert seen(processes)[1:4] == [
        (11, 10, "sh", 0),
        (12, 10, "sh", "runs"),
        (13, 12, "cc", "runs"),
    ]


def test_a_zombie_has_ended(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.put(10, 1, "sh", state="Z", code=3 << 8)
    proc.put(20, 1, "other", state="Z", code=0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert seen(tree(proc, 10, 20)) == [(10, 1, "sh", 3), (20, 1, "other", 0)]
    # The kernel shows other users 0 for any code.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert seen(tree(proc, 10)) == [(10, 1, "sh", None)]
    processes = tree(proc, 10)
    processes.exited(10, 10, 3 << 8)
    processes.look()
    assert seen(processes) == [(10, 1, "sh", 3)]


def test_roots_may_be_added_and_may_be_gone(proc: Proc) -> None:
    processes = Family(proc=proc.folder)
    processes.add_root(10)
    assert seen(processes) == []
    processes.look()
    processes.add_root(20)
    processes.add_root(99)
    assert seen(processes) == [
        (10, 1, "sh", "runs"),
        (20, 1, "other", "runs"),
        (99, 0, "", None),
    ]


def test_only_so_many_are_kept_and_all_are_counted(proc: Proc) -> None:
    processes = tree(proc, 10, most=2)
    for child in range(100, 110):
        processes.forked(10, child)
        processes.exited(child, child, 0)
    assert [pid for pid, *_ in seen(processes)] == [10, 100]
    assert processes.not_kept == 9
    # Their children count as well, whoever reports them.
    processes.forked(10, 200)
    processes.forked(200, 201)
    proc.put(200, 10, "sh")
    proc.put(201, 200, "sh")
    proc.put(202, 201, "sh")
    processes.look()
    processes.forked(201, 202)
    assert processes.not_kept == 12
    assert len(seen(processes)) == 2


def test_what_is_returned_does_not_change(proc: Proc) -> None:
    processes = tree(proc, 10)
    (before,) = processes.processes()
    processes.exited(10, 10, 0)
    assert not before.has_ended
    assert repr(before) == "Followed(10, parent 1, 'sh', runs)"
