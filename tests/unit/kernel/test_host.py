# SPDX-License-Identifier: Apache-2.0
"""Checks of the running kernel, on files recorded from real machines."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from batchprobe.errors import UnsupportedError
from batchprobe.kernel import host
from batchprobe.kernel.host import Finding, Status

FULL = (
    "Name:\tsh\nCapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n"
)
# A container started by docker.
CONTAINER = "Name:\tsh\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n"
NONE = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
BPF_AND_PERFMON = "CapEff:\t000000c000000000\n"
ALL_USERS = "         0          0 4294967295\n"
USER_NAMESPACE = "         0       1000          1\n"

DEBIAN_12 = """\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.1.0 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
CONFIG_BPF=y
CONFIG_BPF_SYSCALL=y
CONFIG_BPF_JIT=y
# CONFIG_BPF_PRELOAD is not set
CONFIG_KALLSYMS=y
CONFIG_KALLSYMS_ALL=y
CONFIG_KPROBES=y
CONFIG_KPROBES_ON_FTRACE=y
CONFIG_PROC_KCORE=y
# CONFIG_FPROBE is not set
CONFIG_KPROBE_EVENTS=y
CONFIG_BPF_EVENTS=y
"""
GZIPPED = gzip.compress(DEBIAN_12.encode())
RELEASE = "6.1.0-50-amd64"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the files of a machine that passes all checks."""
    texts = {
        "proc/self/status": FULL,
        "proc/self/uid_map": ALL_USERS,
        "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
        f"boot/config-{RELEASE}": DEBIAN_12.replace(
            "# CONFIG_FPROBE is not set", "CONFIG_FPROBE=y"
        ),
        "sys/kernel/debug/kprobes/enabled": "1\n",
        "proc/sys/debug/kprobes-optimization": "1\n",
        "proc/sys/kernel/ftrace_enabled": "1\n",
        "proc/sys/net/core/bpf_jit_enable": "1\n",
        "sys/kernel/btf/vmlinux": "\x9f\xeb\x01",
    }
    for name, text in texts.items():
        write(tmp_path / name, text)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_all_checks_pass(root: Path) -> None:
    findings = [
        host.check_privileges(root, euid=0),
        host.check_lockdown(root),
        host.check_config(root, release=RELEASE),
        host.check_kprobes(root),
        host.check_ftrace(root),
        host.check_btf(root),
        host.check_jit(root),
    ]
    assert {(status, remedy) for status, _, remedy in findings} == {(Status.OK, "")}


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("5.10.0-32-amd64", (5, 10)),
        ("6.12.107+deb13-amd64", (6, 12)),
        ("7.0-rc1", (7, 0)),
        ("unknown", (0, 0)),
    ],
)
def test_version(release: str, version: tuple[int, int]) -> None:
    assert host.kernel_version(release) == version


def test_capabilities() -> None:
    assert host.effective_capabilities(FULL) == set(range(41))
    assert host.effective_capabilities(NONE) == set()
    assert host.effective_capabilities(BPF_AND_PERFMON) == {host.CAP_BPF, host.CAP_PERFMON}
    assert host.CAP_SYS_ADMIN not in host.effective_capabilities(CONTAINER)
    assert host.effective_capabilities("Name:\tsh\n") == set()


@pytest.mark.parametrize(
    ("status", "uid_map", "euid", "detail"),
    [
        (NONE, ALL_USERS, 1000, "attaching kprobes needs root"),
        (CONTAINER, ALL_USERS, 0, "without CAP_SYS_ADMIN"),
        (FULL, USER_NAMESPACE, 0, "user namespace"),
    ],
)
def test_insufficient_privileges(
    root: Path, status: str, uid_map: str, euid: int, detail: str
) -> None:
    write(root / "proc/self/status", status)
    write(root / "proc/self/uid_map", uid_map)
    found = host.check_privileges(root, euid=euid)
    assert found[0] is Status.LACKING
    assert detail in found[1]
    assert found[2]


def test_cap_bpf_and_cap_perfmon_suffice(root: Path) -> None:
    write(root / "proc/self/status", BPF_AND_PERFMON)
    assert host.check_privileges(root, euid=0)[0] is Status.OK


def test_what_a_user_with_capabilities_may_do(root: Path) -> None:
    write(root / "proc/self/status", BPF_AND_PERFMON)
    status, detail, _ = host.check_privileges(root, euid=1000)
    assert status is Status.WARN
    for more in ("CAP_SYSLOG", "CAP_SYS_RAWIO", "root the ABI event"):
        assert more in detail
    write(root / "proc/self/status", FULL)
    status, detail, _ = host.check_privileges(root, euid=1000)
    assert status is Status.WARN
    assert "CAP_SYSLOG" not in detail
    assert "CAP_SYS_RAWIO" not in detail


@pytest.mark.parametrize(
    ("text", "level", "status"),
    [
        ("[none] integrity confidentiality\n", "none", Status.OK),
        ("none [integrity] confidentiality\n", "integrity", Status.OK),
        ("none integrity [confidentiality]\n", "confidentiality", Status.LACKING),
        ("", "", Status.OK),
    ],
)
def test_lockdown(root: Path, text: str, level: str, status: Status) -> None:
    assert host.lockdown_level(text) == level
    write(root / "sys/kernel/security/lockdown", text)
    assert host.check_lockdown(root)[0] is status


def test_config_options() -> None:
    options = host.config_options(DEBIAN_12 + "CONFIG_OFF=n\nCONFIG_NONE_AT_ALL=none\n")
    assert {"KPROBES", "KPROBE_EVENTS", "NONE_AT_ALL", "CC_VERSION_TEXT"} <= options
    assert not {"FPROBE", "BPF_PRELOAD", "OFF"} & options


def test_missing_useful_options_are_named(root: Path) -> None:
    write(root / f"boot/config-{RELEASE}", DEBIAN_12)
    status, detail, _ = host.check_config(root, release=RELEASE)
    assert status is Status.OK
    assert "CONFIG_FPROBE" in detail
    assert "CONFIG_KALLSYMS_ALL" not in detail


def test_proc_config_takes_precedence(root: Path) -> None:
    text = DEBIAN_12.replace("CONFIG_KPROBE_EVENTS=y\n", "")
    (root / "proc/config.gz").write_bytes(gzip.compress(text.encode()))
    status, detail, remedy = host.check_config(root, release=RELEASE)
    assert status is Status.LACKING
    assert detail == "/proc/config.gz does not set CONFIG_KPROBE_EVENTS"
    assert remedy


@pytest.mark.parametrize("content", [b"", b"not gzip", GZIPPED[:-9], GZIPPED[:10] + b"\xff" * 9])
def test_a_damaged_config_is_skipped(root: Path, content: bytes) -> None:
    (root / "proc/config.gz").write_bytes(content)
    assert host.check_config(root, release=RELEASE)[0] is Status.OK


def test_no_config_is_a_warning(root: Path) -> None:
    assert host.check_config(root, release="4.19.0")[0] is Status.WARN


@pytest.mark.parametrize(
    ("file", "text", "check", "status", "remedy"),
    [
        (
            "sys/kernel/debug/kprobes/enabled",
            "0\n",
            host.check_kprobes,
            Status.LACKING,
            "echo 1 > /sys/kernel/debug/kprobes/enabled",
        ),
        (
            "proc/sys/debug/kprobes-optimization",
            "0\n",
            host.check_kprobes,
            Status.WARN,
            "sysctl -w debug.kprobes-optimization=1",
        ),
        (
            "proc/sys/kernel/ftrace_enabled",
            "0\n",
            host.check_ftrace,
            Status.LACKING,
            "sysctl -w kernel.ftrace_enabled=1",
        ),
        (
            "proc/sys/net/core/bpf_jit_enable",
            "0\n",
            host.check_jit,
            Status.WARN,
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        (
            "proc/sys/net/core/bpf_jit_enable",
            "2\n",
            host.check_jit,
            Status.WARN,
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
    ],
)
def test_disabled_switches(
    root: Path,
    file: str,
    text: str,
    check: Callable[[Path], Finding],
    status: Status,
    remedy: str,
) -> None:
    write(root / file, text)
    assert check(root)[::2] == (status, remedy)


@pytest.mark.parametrize(("soft", "enough"), [("20", False), ("64", True), ("unlimited", True)])
def test_few_descriptors_are_an_error(root: Path, soft: str, enough: bool) -> None:
    write(
        root / "proc/self/limits",
        f"Limit                     Soft Limit           Hard Limit           Units\n"
        f"Max open files            {soft:<20} 1048576              files\n",
    )
    if enough:
        host.require_descriptors(root)
        return
    with pytest.raises(UnsupportedError, match=r"only 20 files .* \(ulimit -n 1024\)"):
        host.require_descriptors(root)


@pytest.mark.parametrize(
    ("file", "check", "subject"),
    [
        ("sys/kernel/debug/kprobes/enabled", host.check_kprobes, "kprobes are disarmed"),
        ("proc/sys/kernel/ftrace_enabled", host.check_ftrace, "ftrace is off"),
    ],
)
def test_a_switch_that_is_off_is_named(
    root: Path, file: str, check: Callable[[Path], Finding], subject: str
) -> None:
    """The session has this as its error, without the name of the check."""
    write(root / file, "0\n")
    assert check(root)[1].startswith(subject)


def test_users_detect_kprobes_by_a_symbol(root: Path) -> None:
    (root / "sys/kernel/debug/kprobes/enabled").unlink()
    (root / "proc/sys/debug/kprobes-optimization").unlink()
    kallsyms = root / "proc/kallsyms"
    write(kallsyms, "0000000000000000 T unregister_kprobe\n0000000000000000 T register_kprobes\n")
    assert host.check_kprobes(root)[0] is Status.LACKING
    write(kallsyms, kallsyms.read_text() + "0000000000000000 T register_kprobe\n")
    assert host.check_kprobes(root)[0] is Status.OK


def test_a_machine_with_none_of_the_files(tmp_path: Path) -> None:
    assert host.check_kprobes(tmp_path)[0] is Status.LACKING
    assert host.check_privileges(tmp_path, euid=0)[0] is Status.LACKING
    for check in (host.check_lockdown, host.check_ftrace, host.check_btf, host.check_jit):
        assert check(tmp_path)[0] is not Status.LACKING
