# SPDX-License-Identifier: Apache-2.0
"""Parsing kprobes/list of debugfs."""

from __future__ import annotations

from recorded import recorded

from batchprobe.kernel.kprobes_list import parse_breakpoints


def test_breakpoints_are_kprobes_without_flags() -> None:
    text = recorded("debian-12", "kprobes_list").decode()
    found = parse_breakpoints(text)
    names = {line.split()[2] for line in text.splitlines() if int(line.split()[0], 16) in found}
    assert names == {
        "tcp_v4_init_sock+0x5",
        "tcp_v4_md5_hash_headers+0x5",
        "tcp_v4_pre_connect+0x5",
    }
    assert "[FTRACE]" in text


def test_empty_list() -> None:
    assert parse_breakpoints("") == frozenset()
