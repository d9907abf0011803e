# SPDX-License-Identifier: Apache-2.0
"""`doctor` reports the state of real kernels, and leaves them as they were."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.machine import (
    ABIS,
    BY_HAND,
    ENTRY_IS_FTRACE,
    MACHINE,
    PLACES,
    RELEASE,
    TRACEFS,
    eventually,
    setting,
)

from batchprobe.cleanup.sweep import sweep
from batchprobe.doctor import Check, Status, can_trace, examine
from batchprobe.kernel import host
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys.process import Owner

KPROBES = Path("/sys/kernel/debug/kprobes")
PRINT = """
from batchprobe.doctor.checks import examine
for check in examine():
    print(check.name, check.status.value, check.detail, check.remedy, sep="|")
"""


def examined() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def examined_as(*command: str, user: str = "root") -> dict[str, Check]:
    """The checks as made by another process, which `command` starts."""
    checkout = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, sys.executable, "-B", "-c", PRINT],
        check=True,
        capture_output=True,
        text=True,
        user=user,
        extra_groups=[],
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), *sys.path])},
    )
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {row[0]: Check(row[0], Status(row[1]), *row[2:]) for row in rows}


@contextlib.contextmanager
def read_only(mount: str) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)


def test_a_stock_kernel_can_trace_by_the_abis_it_should_have() -> None:
    foreign = f"p:doctor_test/stays vfs_fsync_range{BY_HAND}"
    tracefs = Tracefs.find()
    tracefs.command(foreign)
    try:
        before = kprobe_state()
        checks = examined()
        eventually(lambda: kprobe_state() == before, "doctor removes its probes", seconds=20)
        assert foreign in (TRACEFS / "kprobe_events").read_text().splitlines()
    finally:
        tracefs.command("-:doctor_test/stays")

    abis = {name.removeprefix("abi "): check for name, check in checks.items() if "abi " in name}
    assert [name for name, check in abis.items() if check.status is Status.OK] == list(ABIS)
    assert [name for name, check in abis.items() if check.status is Status.LACKING] == (
        [] if "multi" in ABIS else ["multi"]
    )
    others = [check for name, check in checks.items() if name.removeprefix("abi ") not in abis]
    assert [check for check in others if check.status is Status.LACKING] == []
    assert can_trace(list(checks.values()))
    # The kernel's configuration agrees with what was tried.
    assert ("CONFIG_FPROBE" in checks["configuration"].detail) == ("multi" not in ABIS)
    # Debian's kernels begin functions with endbr64 since 6.12.
    after = {"x86_64": "+9" if RELEASE >= (6, 12) else "+5"}.get(MACHINE, "")
    assert checks["placement"].detail.endswith(after)
    for abi in ("event", "perf"):
        probed, _, refused = abis[abi].detail.partition(" removed, ")
        for placement in ("entry", "after"):
            assert (placement in probed) == (placement in PLACES)
            assert (f"refused at {placement}" in refused) == (placement not in PLACES)
    assert "MEMBARRIER" in checks["barrier"].detail
    assert checks["stale objects"].detail == "none"


def kprobe_state() -> list[str]:
    """All probes in the kernel, of any owner."""
    files = (TRACEFS / "kprobe_events", TRACEFS / "enabled_functions", KPROBES / "list")
    return [file.read_text() for file in files]


def test_a_user_is_advised_to_become_root() -> None:
    checks = examined_as(user="nobody")
    for name in ("rights", "tracefs", "symbols"):
        assert checks[name].status is Status.LACKING, checks[name]
        assert "root" in checks[name].remedy or "sudo" in checks[name].remedy
    untried = ["abi multi", "abi event", "abi perf", "stale objects"]
    if MACHINE not in {"aarch64", "armv7l"}:
        # These need no code for it.
        untried.append("placement")
    for name in untried:
        assert checks[name].detail == "not tried: needs root"
    # Every user may see these.
    for name in ("kernel", "kprobes", "configuration", "ftrace", "bcc", "headers", "barrier"):
        assert checks[name].status is Status.OK, checks[name]
    assert not can_trace(list(checks.values()))


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        (("unshare", "--user", "--map-root-user"), "user namespace"),
        (("setpriv", "--inh-caps=-all", "--bounding-set=-all"), "without CAP_SYS_ADMIN"),
    ],
)
def test_root_without_its_rights_is_reported(command: tuple[str, ...], detail: str) -> None:
    checks = examined_as(*command)
    assert checks["rights"].status is Status.LACKING
    assert detail in checks["rights"].detail
    assert not can_trace(list(checks.values()))


def test_hidden_addresses_are_reported() -> None:
    with setting("/proc/sys/kernel/kptr_restrict", "2"):
        checks = examined()
    assert checks["symbols"].status is Status.LACKING
    assert checks["symbols"].remedy == "sysctl -w kernel.kptr_restrict=1"
    assert checks["abi event"].detail.startswith("not tried: the kernel hides")
    assert not can_trace(list(checks.values()))


def test_ftrace_that_is_off_is_reported() -> None:
    with setting("/proc/sys/kernel/ftrace_enabled", "0"):
        checks = examined()
    assert checks["ftrace"].status is Status.LACKING
    assert checks["ftrace"].remedy == "sysctl -w kernel.ftrace_enabled=1"
    # Attaching works, so only a call shows it. After the patch site, the call is counted.
    if ENTRY_IS_FTRACE:
        assert checks["abi event"].status is Status.WARN
        assert checks["abi event"].detail.startswith("entry: a call of")
        assert "used: after" in checks["abi event"].detail
    else:
        assert checks["abi event"].status is Status.OK
    if "multi" in ABIS:
        assert "was not counted" in checks["abi multi"].detail


def test_disarmed_kprobes_are_reported() -> None:
    with setting(str(KPROBES / "enabled"), "0"):
        checks = examined()
    assert checks["kprobes"].status is Status.LACKING
    assert checks["kprobes"].remedy == "echo 1 > /sys/kernel/debug/kprobes/enabled"
    for name in ("abi event", "abi perf"):
        assert checks[name].status is Status.LACKING
        assert "was not counted" in checks[name].detail


def test_a_setting_that_slows_removal_is_reported() -> None:
    with setting("/sys/kernel/rcu_normal", "1"):
        found = examined()["expedited rcu"]
    assert found.status is Status.WARN
    assert "rcu_normal=1" in found.detail
    assert found.remedy == "echo 0 > /sys/kernel/rcu_normal"


def test_read_only_mounts_are_reported() -> None:
    with read_only("/sys"), read_only(str(TRACEFS)):
        checks = examined()
    assert checks["expedited rcu"].remedy == "mount -o remount,rw /sys"
    assert checks["tracefs"].status is Status.LACKING
    assert checks["tracefs"].remedy == f"mount -o remount,rw {TRACEFS}"
    assert "EROFS" in checks["abi event"].detail
    assert examined()["tracefs"].status is Status.OK


def test_tracefs_is_found_elsewhere_or_reported_as_missing() -> None:
    debugfs = TRACEFS.parent / "debug"
    subprocess.run(["umount", str(TRACEFS)], check=True)
    try:
        # The kernel mounts tracefs below debugfs on access.
        elsewhere = examined()
        subprocess.run(["umount", str(debugfs / "tracing")], check=True)
        subprocess.run(["umount", str(debugfs)], check=True)
        try:
            nowhere = examined()
        finally:
            subprocess.run(["mount", "-t", "debugfs", "debugfs", str(debugfs)], check=True)
    finally:
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACEFS)], check=True)
    assert elsewhere["tracefs"].detail == str(debugfs / "tracing")
    assert elsewhere["abi event"].status is Status.OK
    assert nowhere["tracefs"].status is Status.LACKING
    assert nowhere["tracefs"].remedy == f"mount -t tracefs nodev {TRACEFS}"
    assert nowhere["abi event"].detail.startswith("tracefs is not mounted")
    # These do not need tracefs.
    assert nowhere["kprobes"].status is nowhere["symbols"].status is Status.OK


def test_stale_objects_are_found() -> None:
    child = subprocess.Popen(["sleep", "100"])
    me = Owner.this_process()
    start = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    owner = Owner(child.pid, start, me.namespace)
    tracefs = Tracefs.find()
    try:
        for function in ("vfs_fsync_range", "vfs_fallocate"):
            tracefs.command(f"p:{owner.group}/stale {function}{BY_HAND}")
        assert examined()["stale objects"].detail == "none; 2 probes of live processes"
    finally:
        child.kill()
        child.wait()
        found = examined()["stale objects"]
        sweep(tracefs)
    assert found.status is Status.WARN
    assert found.detail == "2 probes of processes that died"
    assert found.remedy == "batchprobe cleanup"


def test_locked_memory_limits_old_kernels_only() -> None:
    # Not as root, which may raise the limit, and in this process has done so.
    checks = examined_as("prlimit", "--memlock=65536", user="nobody")
    assert (checks["locked memory"].status is Status.WARN) == (RELEASE < (5, 11))
    assert host.kernel_version(os.uname().release) == RELEASE
