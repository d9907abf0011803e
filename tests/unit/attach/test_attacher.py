# SPDX-License-Identifier: Apache-2.0
"""What an attach says of functions that the action leaves out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from entries import parse
from recorded import SYSCALL_PREFIXES, table

from batchprobe.attach.attacher import Attacher
from batchprobe.functions.resolve import resolve
from batchprobe.functions.targets import Reason

TABLE = table("debian-12")


def prepared(entry: str) -> tuple[str, Any]:
    """The sentence, and what is left, if the action leaves out everything."""
    found = resolve([parse(entry)], TABLE, syscall_prefixes=SYSCALL_PREFIXES)
    action: Any = SimpleNamespace(
        prepare=lambda targets, _symbols: dict.fromkeys(targets, "no argument named len")
    )
    attacher: Any = SimpleNamespace(symbols=None, _explain=lambda _sentence: None)
    return Attacher._prepare(cast(Attacher, attacher), found, action), found


def test_functions_of_a_pattern_that_are_all_left_out() -> None:
    why, found = prepared("vfs_rea*")
    assert not found.targets
    assert not found.skipped
    count = found.omitted[Reason.LACKS]
    assert count > 1
    assert why.startswith(f"{count} functions without what is asked for, such as vfs_rea")
    assert why.endswith(": no argument named len")


def test_a_function_that_is_left_out_is_a_skip() -> None:
    why, found = prepared("vfs_read")
    assert [skip.reason for skip in found.skipped] == [Reason.LACKS]
    # It has the reason.
    assert why == ""
