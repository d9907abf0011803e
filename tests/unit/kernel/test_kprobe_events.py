# SPDX-License-Identifier: Apache-2.0
"""Parsing kprobe_events."""

from __future__ import annotations

from batchprobe.kernel.kprobe_events import parse

EVENTS = """\
p:kprobes/p_vfs_read_0 vfs_read
r32:batchprobe_7_8_9/bp7_0 _text+3311648
p:batchprobe_7_8_9/bp7_1 zram:disksize_show+5 id=\\17:u32
p:batchprobe_7_8_9/bp7_1 0x00000000deadbeef
"""


def test_events() -> None:
    found = [(one.is_return, one.group, one.event, one.location) for one in parse(EVENTS)]
    assert found == [
        (False, "kprobes", "p_vfs_read_0", "vfs_read"),
        (True, "batchprobe_7_8_9", "bp7_0", "_text+3311648"),
        (False, "batchprobe_7_8_9", "bp7_1", "zram:disksize_show+5"),
        (False, "batchprobe_7_8_9", "bp7_1", "0x00000000deadbeef"),
    ]
    assert parse("") == []
