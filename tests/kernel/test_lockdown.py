# SPDX-License-Identifier: Apache-2.0
"""If the kernel is locked down, attached probes are removed as far as it permits."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from helpers.command import Running, run
from helpers.machine import ABIS, RCU_EXPEDITED, kinds

SECURITY = Path("/sys/kernel/security")


@pytest.mark.lockdown
def test_locked_down_while_probes_are_on(tmp_path: Path) -> None:
    if not (SECURITY / "lockdown").exists():
        subprocess.run(("mount", "-t", "securityfs", "nodev", SECURITY), check=True)
    assert "[none]" in (SECURITY / "lockdown").read_text()
    few = tmp_path / "few"
    few.write_text(f"vfs_read\nvfs_write{kinds('event')[-1]}\n")
    arguments = ("attach", few, "-i", "0.1", "--json", "--abi")
    with (
        Running(*arguments, ABIS[0]) as first,
        Running(*arguments, "event") as event,
        Running(*arguments, "perf") as perf,
    ):
        for running in (first, event, perf):
            running.until_line("counts")
        (SECURITY / "lockdown").write_text("confidentiality")
        for running in (first, event, perf):
            running.signal(signal.SIGINT)
            done = running.finish()
            commit = done.summary["commit"]
            assert (commit["probes"], commit["barriers"]) == (2, 1), done
            assert done.summary["hits"]["vfs_read"] > 0
            assert "Traceback" not in done.stderr
            # Disarmed, and final, but lockdown forbids even deletions in tracefs.
            if done.summary["abi"] == "event":
                assert done.status == 5, done
                assert commit["left"] == len(kinds("event")), "one event for each kind of probe"
                assert "EPERM" in done.stderr
            else:
                assert done.status == 0, done
    assert RCU_EXPEDITED.read_text().strip() == "0"

    again = run("attach", "-", "-d", "1", stdin="vfs_read\n")
    assert again.status == 77, again
    assert "lock" in again.stderr
    assert "Traceback" not in again.stderr
