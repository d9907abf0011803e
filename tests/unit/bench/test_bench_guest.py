# SPDX-License-Identifier: Apache-2.0
"""What scripts/bench does in the guest, as far as it is pure."""

from __future__ import annotations

from pathlib import Path

import pytest
from _bench.functions import best_glob, best_prefixes
from _bench.jobs import BATCHPROBE, BPFTRACE, FIRST_START, FUNCCOUNT
from _bench.tools import command_line
from _bench.witness import is_armed

# How a function begins: a patch site and pushes; on newer kernels endbr64 before them.
PLAIN = bytes.fromhex("0f1f44000041574156415541544989cc")
ENDBR = bytes.fromhex("f30f1efa0f1f440000415741564155")


@pytest.mark.parametrize("entry", [PLAIN, ENDBR])
def test_what_arms_a_probe(entry: bytes) -> None:
    def with_byte(at: int, value: int) -> bytes:
        return entry[:at] + bytes([value]) + entry[at + 1 :]

    site = entry.index(bytes.fromhex("0f1f440000"))
    assert not is_armed(entry, entry)
    assert is_armed(entry, with_byte(site, 0xE8)), "ftrace's call"
    assert not is_armed(entry, with_byte(site, 0xCC)), "a call that is being written"
    assert is_armed(entry, with_byte(site + 5, 0xCC)), "a breakpoint behind it"
    assert is_armed(entry, with_byte(site + 5, 0xE9)), "its jump"


def test_the_glob_nearest_to_a_number() -> None:
    names = ["vfs_read", "vfs_write", "vfs_open", "tcp_ack", "tcp_push", "udp_err"]
    assert best_glob(names, 2) == "t*"
    assert best_glob(names, 3) == "v*"
    assert best_glob(["ax", "bx", "c"], 2) == "*x*"


def test_a_pattern_without_what_cannot_be_probed() -> None:
    names = [*(f"tcp_{n}" for n in range(5)), *(f"vfs_{n}" for n in range(3)), "udp_a", "dput"]
    assert best_prefixes(names, [], 7) == "(tcp_|udp_)*"
    assert best_prefixes(names, ["tcp_no_probe", "_x"], 7) == "(vfs_|udp_)*"


def test_commands_are_those_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: f"/bin/{tool}")
    listed = tmp_path / "list"
    monkeypatch.setattr("_bench.tools._LIST", listed)
    attach = ["/bin/batchprobe", "attach"]
    assert command_line(BATCHPROBE, "vfs_*") == [*attach, str(listed)]
    assert listed.read_text() == "vfs_*\n"
    assert command_line(FIRST_START, "vfs_*") == [*attach, str(listed)]
    options = ["--abi", "event", "--placement", "after"]
    assert command_line(f"{BATCHPROBE} event after", "*") == [*attach, *options, str(listed)]
    assert command_line(FUNCCOUNT, "vfs_*") == ["/bin/funccount-bpfcc", "vfs_*"]
    assert command_line(BPFTRACE, "*")[2] == "kprobe:* { @[func] = count(); }"


def test_a_tool_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _tool: None)
    with pytest.raises(RuntimeError, match="there is no bpftrace"):
        command_line(BPFTRACE, "*")
