# SPDX-License-Identifier: Apache-2.0
"""Every command with --json prints what docs/json.md describes."""

from __future__ import annotations

from collections import Counter

import pytest
from helpers.command import run

pytestmark = pytest.mark.one_kernel


def test_records_of_attach() -> None:
    entries = "vfs_*\nvfs_read%return\nnosuch\nbtrfs:btrfs_sync_file\n"
    done = run("attach", "-", "-d", "1", "-i", "0.3", "--json", stdin=entries)
    assert done.status == 0, done
    types = [record["type"] for record in done.records]
    assert types[-2:] == ["final", "summary"]
    assert set(types[:-2]) == {"counts"}
    assert done.summary["skipped"]
    assert done.summary["pending"] == ["btrfs:btrfs_sync_file"]


def test_the_summary_of_nothing() -> None:
    done = run("attach", "-", "--json", stdin="nosuch\n")
    assert done.status == 3, done
    assert [record["type"] for record in done.records] == ["summary"]
    assert (done.summary["attached"], done.summary["abi"]) == (0, "")


def test_records_of_functions() -> None:
    done = run("functions", "vfs_*", "vfs_read%return", "nosuch", "btrfs:btrfs_sync_file", "--json")
    assert done.status == 0, done
    found = Counter(record["type"] for record in done.records)
    assert done.summary["functions"] == found["function"]
    assert done.summary["skipped"] == found["skipped"] == 1
    (pending,) = (record for record in done.records[:-1] if record.get("address", "") is None)
    assert pending["label"] == "btrfs:btrfs_sync_file"


def test_records_of_doctor() -> None:
    done = run("doctor", "--json")
    assert done.status == 0, done
    assert {record["type"] for record in done.records} == {"check"}
