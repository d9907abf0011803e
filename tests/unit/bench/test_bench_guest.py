"""What scripts/bench does in the guest, as far as it is pure."""

from __future__ import annotations

import pytest
from _bench.functions import best_glob
from _bench.phases import phases
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


def test_phases_that_batchprobe_tells() -> None:
    said = (
        "batchprobe: 130 probes off in one commit (0 clean, 130 dirty), barriers: 1; "
        "gates 1.5 ms, final after 9.9 ms, reclaimed in 0.19 s\n"
    )
    assert phases(said) == pytest.approx({"top": 0.0015, "barrier": 0.0099, "reclaim": 0.19})
    assert phases("@[vfs_read]: 4\n") == {}
