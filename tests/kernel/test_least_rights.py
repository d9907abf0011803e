# SPDX-License-Identifier: Apache-2.0
"""Without root, and without tracefs: what the kernel permits works, the rest is explained."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import COMMAND, Finished, run
from helpers.machine import ABIS, HANG_SECONDS, in_namespace, setting

import batchprobe

NEEDED = ("bpf", "perfmon", "syslog")
# A link, or where the kernel has none, perf kprobes: these need no tracefs.
ABI = "multi" if "multi" in ABIS else "perf"


@pytest.fixture(autouse=True)
def package_is_readable() -> Iterator[None]:
    """The package is in a folder that only root can enter."""
    folder = Path(batchprobe.__file__).parents[1]
    before = folder.stat().st_mode
    folder.chmod(0o755)
    yield
    folder.chmod(before)


def run_as_nobody(capabilities: tuple[str, ...], *arguments: str, stdin: str = "") -> Finished:
    """Run the command as a user with only these capabilities."""
    listed = ",".join(f"+{name}" for name in capabilities)
    command = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(f"--inh-caps=-all,{listed}", f"--ambient-caps=-all,{listed}"),
        *("env", "HOME=/nonexistent", *COMMAND, *arguments),
    )
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def perf_for_users() -> Iterator[None]:
    """Debian's kernels let only CAP_SYS_ADMIN open perf events, unless this is lower than 3."""
    with setting("/proc/sys/kernel/perf_event_paranoid", "2"):
        yield


@pytest.mark.usefixtures("perf_for_users")
def test_a_user_with_three_capabilities_counts() -> None:
    done = run_as_nobody(NEEDED, "attach", "vfs_read,vfs_write", "-d", "1", "--json")
    assert done.status == 0, done
    assert done.summary["abi"] == ABI
    assert done.summary["hits"]["vfs_read"] > 0
    assert done.summary["commit"]["barriers"] == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("capabilities", "lacking"),
    [
        (("bpf", "perfmon"), "CAP_SYSLOG"),
        (("bpf", "syslog"), "CAP_PERFMON"),
        (("perfmon", "syslog"), "CAP_BPF"),
    ],
)
def test_what_is_missing_is_named(capabilities: tuple[str, ...], lacking: str) -> None:
    done = run_as_nobody(capabilities, "attach", "vfs_read", "-d", "0")
    assert done.status == 77, done
    assert lacking in done.stderr
    assert len(done.messages) == 1, done


@pytest.mark.skipif("multi" not in ABIS, reason="this kernel has no kprobe_multi links")
def test_the_example_of_a_service_counts() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(Path(__file__).parents[2] / "examples" / "batchprobe-least-rights.service")
    granted = unit["Service"]["AmbientCapabilities"].lower().replace("cap_", "").split()
    _, *start = shlex.split(unit["Service"]["ExecStart"])
    done = run_as_nobody(tuple(granted), *start, "-d", "1")
    assert done.status == 0, done
    assert done.summary["abi"] == "multi"
    assert done.summary["attached"] > 30


def test_an_abi_that_needs_root_says_so() -> None:
    done = run_as_nobody(NEEDED, "attach", "vfs_read", "-d", "0", "--abi", "event")
    assert done.status == 77, done
    assert "only root can read tracefs" in done.stderr


@pytest.mark.usefixtures("perf_for_users")
def test_doctor_says_what_more_would_bring() -> None:
    done = run_as_nobody(NEEDED, "doctor")
    assert done.status == 0, done
    assert "root the ABI event" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_container_without_tracefs() -> None:
    hide = in_namespace(
        "umount /sys/kernel/tracing",
        "{ umount /sys/kernel/debug/tracing || :; } 2>/dev/null",
        "umount /sys/kernel/debug",
    )
    done = run("attach", "vfs_read", "-d", "1", "--json", before=hide)
    assert done.status == 0, done
    assert done.summary["abi"] == ABI
    assert done.summary["hits"]["vfs_read"] > 0
