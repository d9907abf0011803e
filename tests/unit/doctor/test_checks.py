# SPDX-License-Identifier: Apache-2.0
"""What batchprobe doctor reports, on any machine and for recorded distributions."""

from __future__ import annotations

import os

import pytest

from batchprobe import arch
from batchprobe.doctor import Check, Status, can_trace, examine
from batchprobe.doctor.bcc import install_commands

DEBIAN = {"ID": "debian"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian"}
ROCKY = {"ID": "rocky", "ID_LIKE": "rhel centos fedora"}
LEAP = {"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}
ARCH = {"ID": "arch"}
ALPINE = {"ID": "alpine"}


@pytest.mark.parametrize(
    ("system", "release", "package", "bcc", "headers"),
    [
        (
            DEBIAN,
            "6.12.107+deb13-amd64",
            "linux",
            "apt install python3-bpfcc",
            "apt install linux-headers-6.12.107+deb13-amd64",
        ),
        (
            UBUNTU,
            "6.8.0-31-generic",
            "linux",
            "apt install python3-bpfcc",
            "apt install linux-headers-6.8.0-31-generic",
        ),
        (
            ROCKY,
            "5.14.0-427.13.1.el9_4.x86_64",
            "linux",
            "dnf install python3-bcc",
            "dnf install kernel-devel-5.14.0-427.13.1.el9_4.x86_64",
        ),
        (
            LEAP,
            "6.4.0-150600.23.7-default",
            "linux",
            "zypper install bcc-tools",
            "zypper install kernel-default-devel=6.4.0-150600.23.7",
        ),
        (
            ARCH,
            "6.6.31-2-lts",
            "linux-lts",
            "pacman -S python-bcc",
            "pacman -S linux-lts-headers",
        ),
        (ALPINE, "6.6.30-0-virt", "linux", "apk add py3-bcc", "apk add linux-virt-dev"),
    ],
)
def test_install_commands(
    system: dict[str, str], release: str, package: str, bcc: str, headers: str
) -> None:
    assert install_commands(system, release, package) == (bcc, headers)


def test_an_unknown_distribution_gets_advice_in_words() -> None:
    bcc, headers = install_commands({}, "6.1.0")
    assert "bcc" in bcc
    assert "6.1.0" in headers


def check(name: str, status: Status) -> Check:
    return Check(name, status, "", "")


def test_one_working_abi_is_enough() -> None:
    fine = [check("rights", Status.OK), check("jit", Status.WARN)]
    multi, event = check("abi multi", Status.LACKING), check("abi event", Status.OK)
    assert can_trace([*fine, multi, event])
    assert not can_trace([*fine, multi])
    assert not can_trace([multi, event, check("bcc", Status.LACKING)])
    assert not can_trace([])


def test_examine_works_on_any_machine() -> None:
    checks = examine()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("abi ")] == [
        "abi multi",
        "abi event",
        "abi perf",
    ]
    for found in checks:
        assert found.detail
        assert "\n" not in found.detail + found.remedy
        assert found.remedy == "" or found.status is not Status.OK


@pytest.mark.parametrize(
    ("machine", "why"), [("ia64", "CONFIG_PERF_EVENTS"), ("vax", "not supported")]
)
def test_doctor_reports_why_a_machine_is_refused(
    machine: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.uname()
    other = type(own)((own.sysname, own.nodename, own.release, own.version, machine))
    monkeypatch.setattr("os.uname", lambda: other)
    arch.current.cache_clear()
    try:
        kernel = next(check for check in examine() if check.name == "kernel")
    finally:
        monkeypatch.undo()
        arch.current.cache_clear()
    assert kernel.status is Status.LACKING
    assert why in kernel.detail
    assert kernel.remedy
