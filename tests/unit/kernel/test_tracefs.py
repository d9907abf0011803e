# SPDX-License-Identifier: Apache-2.0
"""Parsing tracefs files, and reading and writing them below another root."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from batchprobe.errors import KernelError
from batchprobe.kernel.tracefs import Tracefs, profiled

EVENTS = """\
p:kprobes/p_vfs_read_0 vfs_read
r32:batchprobe_7_8_9/bp7_0 _text+3311648
p:batchprobe_7_8_9/bp7_1 zram:disksize_show+5 id=\\17:u32
p:batchprobe_7_8_9/bp7_1 0x00000000deadbeef
"""
PROFILE = """\
  bp7_0                                                             100               0
  bp7_0                                                               3               2
  a_very_long_name_of_an_event_that_fills_its_column_and_more_than_it 18446744073709551615 7
"""


def test_profile() -> None:
    assert profiled(PROFILE, "bp7_0") == [100, 5]
    longest = "a_very_long_name_of_an_event_that_fills_its_column_and_more_than_it"
    assert profiled(PROFILE, longest) == [2**64 + 6]
    assert profiled(PROFILE, "bp7_1") == []
    assert profiled("", "bp7_0") == []


@pytest.fixture
def tracefs(tmp_path: Path) -> Tracefs:
    (tmp_path / "kprobe_events").write_text(EVENTS)
    (tmp_path / "kprobe_profile").write_text(PROFILE)
    (tmp_path / "events" / "group" / "event").mkdir(parents=True)
    (tmp_path / "events" / "group" / "event" / "id").write_text("1234\n")
    return Tracefs(str(tmp_path))


def test_a_command_is_appended(tracefs: Tracefs) -> None:
    """Truncating the real file would delete the events of every tool."""
    tracefs.command("p:group/event vfs_read")
    tracefs.command("-:group/event")
    text = Path(tracefs.root, "kprobe_events").read_text()
    assert text == EVENTS + "p:group/event vfs_read\n-:group/event\n"


def test_files_are_read(tracefs: Tracefs) -> None:
    assert [one.event for one in tracefs.definitions()] == [
        "p_vfs_read_0",
        "bp7_0",
        "bp7_1",
        "bp7_1",
    ]
    assert tracefs.hits("bp7_0") == [100, 5]
    assert tracefs.event_id("group", "event") == 1234


def test_errors_keep_the_errno_and_name_the_file(tracefs: Tracefs) -> None:
    with pytest.raises(KernelError, match="events/group/other/id") as error:
        tracefs.event_id("group", "other")
    assert error.value.errno == errno.ENOENT
    Path(tracefs.root, "kprobe_events").unlink()
    with pytest.raises(KernelError, match=r"-:x/y.*ENOENT") as error:
        tracefs.command("-:x/y")
    assert error.value.errno == errno.ENOENT
