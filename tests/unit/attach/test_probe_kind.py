# SPDX-License-Identifier: Apache-2.0
"""Entries become the kind of probe that the action and the filters need."""

from __future__ import annotations

import pytest
from entries import parse

from batchprobe import Action, Count, Filter, ProbeKind
from batchprobe.actions.loader import check_names, required_kind
from batchprobe.attach.probe_kind import as_kind


class Entry(Count):
    name = "entry"
    kind = ProbeKind.ENTRY


class Return(Filter):
    name = "return"
    source = ""
    kind = ProbeKind.RETURN


@pytest.mark.parametrize(
    ("action", "filters", "kind"),
    [
        (Count(), [], ProbeKind.AS_LISTED),
        (Entry(), [], ProbeKind.ENTRY),
        (Count(), [Return()], ProbeKind.RETURN),
    ],
)
def test_action_and_filters_require_a_kind(
    action: Action, filters: list[Filter], kind: ProbeKind
) -> None:
    assert required_kind(action, filters) is kind


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="entry needs entry probes and return needs return probes"):
        required_kind(Entry(), [Return()])


def test_two_filters_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="have the name return"):
        check_names(Count(), [Return(), Return()])


def test_two_constants_of_one_name_are_refused() -> None:
    class Limit(Filter):
        name = "limit"
        source = ""

        def constants(self) -> dict[str, int]:
            return {"LIMIT": 1}

    class Other(Limit):
        name = "other"

    check_names(Count(), [Limit()])
    with pytest.raises(ValueError, match="have the name LIMIT"):
        check_names(Count(), [Limit(), Other()])


ENTRIES = [parse(text) for text in ("vfs_read", "tcp_*%return", "vfs_read+4", "!vfs_write")]


@pytest.mark.parametrize(
    ("kind", "fit", "unfit"),
    [
        (
            ProbeKind.AS_LISTED,
            ["vfs_read", "tcp_*%return", "vfs_read+0x4", "!vfs_write"],
            [],
        ),
        (ProbeKind.ENTRY, ["vfs_read", "vfs_read+0x4", "!vfs_write"], ["tcp_*%return"]),
        (ProbeKind.RETURN, ["vfs_read%return", "tcp_*%return", "!vfs_write"], ["vfs_read+4"]),
        # Both ends: an entry stands for them.
        (ProbeKind.CALL, ["vfs_read", "tcp_*", "!vfs_write"], ["vfs_read+4"]),
    ],
)
def test_entries_become_the_needed_kind(kind: ProbeKind, fit: list[str], unfit: list[str]) -> None:
    found, skipped = as_kind(ENTRIES, kind)
    assert [str(spec) for spec in found] == fit
    assert [skip.entry for skip in skipped] == unfit
