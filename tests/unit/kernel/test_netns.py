# SPDX-License-Identifier: Apache-2.0
"""Network namespaces by name, process and path: real ones, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from batchprobe.arch import adapter
from batchprobe.errors import UsageError
from batchprobe.kernel.netns import netns_inode

HERE = Path("/proc/self/ns/net")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the names of namespaces are; without any."""
    monkeypatch.setattr(netns, "NETNS_RUN_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def names(folder: Path) -> Iterator[Path]:
    """Two namespaces, blue and red."""
    made = subprocess.run(("mount", "--bind", folder, folder), capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file can be mounted here: {made.stderr.decode().strip()}")
    try:
        # The file of a namespace can only be where mounts do not propagate.
        subprocess.run(("mount", "--make-private", folder), check=True)
        for name in ("blue", "red"):
            (folder / name).touch()
            command = ("unshare", f"--net={folder / name}", "true")
            made = subprocess.run(command, capture_output=True, check=False)
            if made.returncode:
                pytest.skip(f"no namespace can be made here: {made.stderr.decode().strip()}")
        yield folder
    finally:
        subprocess.run(("umount", "--recursive", folder), check=True)


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        netns_inode(text)
    return str(caught.value)


def test_a_name_means_its_namespace(names: Path) -> None:
    blue, red = netns_inode("blue"), netns_inode("red")
    assert blue == netns_inode(str(names / "blue")) == (names / "blue").stat().st_ino
    assert len({blue, red, HERE.stat().st_ino}) == 3
    # As the kernel prints it.
    inside = ("nsenter", f"--net={names / 'blue'}", "readlink", HERE)
    assert subprocess.check_output(inside, text=True).strip() == f"net:[{blue}]"


def test_a_typo_is_answered_with_names_and_creates_nothing(names: Path) -> None:
    assert refusal("bleu") == (
        "no network namespace has the name bleu; did you mean blue? there are blue, red"
    )
    assert refusal("x") == "no network namespace has the name x: there are blue, red"
    assert {file.name for file in names.iterdir()} == {"blue", "red"}


def test_many_names_are_not_all_listed(folder: Path) -> None:
    for number in range(30):
        (folder / f"n{number:02}").touch()
    text = refusal("x")
    assert text.endswith("n18, n19 and 10 more")


@pytest.mark.parametrize("exists", [True, False])
def test_without_names_the_other_ways_are_told(folder: Path, exists: bool) -> None:
    if not exists:
        folder.rmdir()
    text = refusal("blue")
    assert text.startswith("no network namespace has the name blue, nor has any other: give ")
    assert "/proc/1/ns/net" in text
    assert folder.exists() is exists


@pytest.mark.parametrize("name", ["blü", "a\0b", "x" * 1000, ".", ".."])
def test_impossible_names_are_refused(folder: Path, name: str) -> None:
    assert "network namespace" in refusal(name)
    assert list(folder.iterdir()) == []


def test_a_name_whose_namespace_is_gone_is_none(folder: Path) -> None:
    (folder / "stale").touch()
    assert refusal("stale").startswith("stale is no network namespace: ")


def test_a_process_means_the_namespace_it_is_in() -> None:
    assert netns_inode(str(os.getpid())) == HERE.stat().st_ino
    command = ("unshare", "--net", "sleep", "60")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as other:
        try:
            while Path(f"/proc/{other.pid}/comm").read_text() != "sleep\n":
                if other.poll() is not None:
                    pytest.skip("no network namespace can be made here")
                time.sleep(0.01)
            inode = netns_inode(str(other.pid))
            assert inode == Path(f"/proc/{other.pid}/ns/net").stat().st_ino
            assert inode != HERE.stat().st_ino
        finally:
            other.kill()
        # It is dead, and still to be waited for.
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert f"process {other.pid}: no such process" in refusal(str(other.pid))


@pytest.mark.parametrize("pid", ["0", "4194305", "9" * 40])
def test_a_process_that_is_none_is_refused(folder: Path, pid: str) -> None:
    text = refusal(pid)
    assert text.startswith(f"network namespace of process {pid}: no such process runs here: give ")
    # Someone may have given a namespace this name.
    (folder / pid).touch()
    assert refusal(pid).endswith(f": the namespace of that name is {folder / pid}")


def test_a_path_has_to_stand_for_a_network_namespace(tmp_path: Path) -> None:
    assert netns_inode(str(HERE)) == HERE.stat().st_ino
    os.mkfifo(tmp_path / "fifo")
    for path in ("/proc/self/ns/pid", "/proc/self/ns/mnt", "/dev/null", "/", tmp_path / "fifo"):
        assert refusal(str(path)).startswith(f"{path} is no network namespace: give a name ")
    assert "No such file or directory" in refusal("/nonexistent/ns")
    assert "null byte" in refusal("/proc/\0")


def test_nothing_means_no_namespace() -> None:
    assert refusal("").startswith("no network namespace is named: give a name ")
    # Digits of another script are no number of a process.
    assert "has the name ¹" in refusal("¹")


def test_powerpc_encodes_the_request_in_its_own_way() -> None:
    numbers = {name: adapter(name).get_namespace_type for name in ("x86_64", "ppc64le")}
    assert numbers == {"x86_64": 0xB703, "ppc64le": 0x2000B703}


def test_no_descriptor_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    netns_inode(str(HERE))
    refusal("/dev/null")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
