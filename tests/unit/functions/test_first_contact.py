# SPDX-License-Identifier: Apache-2.0
"""What lists of other tools, and of people, come to on a recorded kernel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from recorded import SYSCALL_PREFIXES, table

from batchprobe.errors import AttachCancelledError
from batchprobe.funclist.parse import parse_list
from batchprobe.functions.resolve import resolve
from batchprobe.functions.table import Function, FunctionTable
from batchprobe.functions.targets import Reason, Resolution
from batchprobe.kernel.module_files import InstalledModules

LISTS = Path(__file__).parents[1] / "data" / "first-contact"
INSTALLED = InstalledModules(
    loadable=frozenset({"btrfs", "nf_conntrack", "ext4", "virtio_blk", "nouveau"}),
    builtin=frozenset({"xhci_pci", "tcp_cubic"}),
)


def run(text: str | bytes, installed: InstalledModules | None = INSTALLED) -> Resolution:
    functions = table("debian-12", installed=installed)
    return resolve(parse_list(text, "list"), functions, syscall_prefixes=SYSCALL_PREFIXES)


def labels(name: str) -> list[str]:
    """The targets of a list that has no skips."""
    found = run((LISTS / name).read_bytes())
    assert found.skipped == []
    return [target.label for target in found.targets]


def test_bpftrace() -> None:
    assert labels("bpftrace.txt") == [
        *("vfs_read", "vfs_read%return", "vfs_write", "ext4:ext4_sync_file", "vfs_open"),
    ]


def test_kprobe_events() -> None:
    assert labels("kprobe-events.txt") == [
        *("vfs_read", "vfs_read%return", "vfs_write", "vfs_open%return"),
    ]


def test_commas() -> None:
    assert labels("commas.txt") == ["vfs_read", "vfs_write", "vfs_open", "vfs_statx"]


def test_ftrace() -> None:
    found = run((LISTS / "ftrace.txt").read_bytes())
    assert found.skipped == []
    first = [target.label for target in found.targets[:3]]
    assert first == ["vfs_read", "ext4:ext4_sync_file", "nf_conntrack:nf_conntrack_in"]
    assert [target.label for target in found.targets if target.pending] == first[2:]
    assert found.omitted[Reason.EXCLUDED] == 5
    assert not any("xattr" in target.label for target in found.targets)


def test_kallsyms() -> None:
    found = run((LISTS / "kallsyms.txt").read_bytes())
    # The recording has no do_dentry_open.
    assert [target.label for target in found.targets] == ["vfs_read", "ext4:ext4_sync_file"]
    assert [skipped.reason for skipped in found.skipped] == [Reason.UNKNOWN]


def test_modules() -> None:
    found = run((LISTS / "modules.txt").read_bytes())
    assert [(target.label, target.pending) for target in found.targets] == [
        ("vfs_read", False),
        ("btrfs:btrfs_sync_file", True),
        ("vfs_read%return", False),
    ]
    (skipped,) = found.skipped
    assert (skipped.entry, skipped.reason) == ("nosuchmod:nosuchfn", Reason.MODULE_NOT_LOADED)
    assert skipped.detail == "no module nosuchmod is installed for this kernel"


def test_system_calls() -> None:
    found = run((LISTS / "syscalls.txt").read_bytes())
    # The recording has no clone. Three spellings of openat are one probe.
    assert [target.label for target in found.targets] == ["syscall:openat", "ksys_read"]
    assert [skipped.entry for skipped in found.skipped] == ["sys_clone"]
    (function,) = table("debian-12").named("__x64_sys_openat")
    (target,) = run("__x64_sys_openat").targets
    assert (target.label, target.function) == ("__x64_sys_openat", function)


@pytest.mark.parametrize("name", ["sys_openat", "SyS_openat", "__arm64_sys_openat"])
def test_a_system_call_under_the_name_of_another_kernel(name: str) -> None:
    (target,) = run(name).targets
    assert target.label == "syscall:openat"
    assert target.spec.text == name
    (target,) = run(f"{name}%return").targets
    assert target.label == "syscall:openat%return"


def test_the_name_of_a_system_call_alone() -> None:
    (skipped,) = run("openat").skipped
    assert skipped.detail.endswith("; the system call is syscall:openat")


def test_tracepoints() -> None:
    found = run((LISTS / "tracepoints.txt").read_bytes())
    assert found.targets == []
    # The recording has no sched_switch.
    assert [skipped.reason for skipped in found.skipped] == [
        *(Reason.MODULE_NOT_LOADED, Reason.NOT_A_FUNCTION, Reason.NOT_A_FUNCTION),
    ]
    assert [skipped.detail for skipped in found.skipped[1:]] == [
        "a tracepoint: write syscall:openat",
        "a tracepoint",
    ]


@pytest.mark.parametrize("installed", [INSTALLED, None])
@pytest.mark.parametrize("text", ["pagemap:mm_lru_insertion", "mm_lru_insertion"])
def test_an_event_of_a_subsystem(text: str, installed: InstalledModules | None) -> None:
    (skipped,) = run(text, installed).skipped
    assert (skipped.reason, skipped.detail) == (*(Reason.NOT_A_FUNCTION, "a tracepoint"),)


def test_a_built_in_module_is_the_core_kernel() -> None:
    found = run("tcp_cubic:tcp_sendmsg\n!tcp_cubic:tcp_sendmsg\nxhci_pci:vfs_read")
    assert [target.label for target in found.targets] == ["vfs_read"]
    assert [skipped.reason for skipped in found.skipped] == [Reason.EXCLUDED]
    found = run("xhci_pci:nosuch_function")
    assert found.targets == []
    assert found.skipped[0].detail.startswith("inlined by the compiler, or not in this kernel")


def test_a_pattern_in_a_built_in_module_is_not_the_whole_kernel() -> None:
    found = run("tcp_cubic:*")
    assert found.targets == []
    assert "tcp_cubic is built in" in found.skipped[0].detail
    found = run("vfs_read\n!tcp_cubic:*")
    assert [target.label for target in found.targets] == ["vfs_read"]


@pytest.mark.parametrize("exclusion", ["!sys_openat", "!__arm64_sys_openat", "!syscall:openat"])
@pytest.mark.parametrize("entry", ["syscall:openat", "sys_openat", "__x64_sys_openat"])
def test_a_system_call_is_excluded_under_any_of_its_names(entry: str, exclusion: str) -> None:
    found = run(f"{entry}\n{exclusion}")
    assert found.targets == []
    assert [skipped.reason for skipped in found.skipped] == [Reason.EXCLUDED]


def test_a_misspelled_module() -> None:
    (skipped,) = run("noveau:nouveau_bo_move").skipped
    assert skipped.detail == (
        "no module noveau is installed for this kernel; similar names: nouveau"
    )
    (skipped,) = run("noveau:*").skipped
    assert "similar names: nouveau" in skipped.detail
    (skipped,) = run("nouveau:*").skipped
    assert skipped.detail.startswith("run modprobe nouveau first")


def test_where_modules_cannot_be_read_any_may_come() -> None:
    (target,) = run("nosuchmod:nosuchfn", None).targets
    assert target.pending


def test_the_address_of_a_symbol_selects_a_namesake() -> None:
    namesakes = table("debian-12").named("type_show")
    assert len(namesakes) > 10
    wanted = namesakes[3]
    (target,) = run(f"{wanted.address:x} t type_show").targets
    assert target.function == wanted
    assert len(run("ffffffff00000001 t type_show").targets) == len(namesakes)


def test_a_list_for_another_kernel_is_resolved_quickly() -> None:
    """Each unknown name cost a search of all symbols; looking it up must not."""
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1

    specs = parse_list("vfs_read\n" + "".join(f"no_such_{n}\n" for n in range(33_000)), "list")
    found = resolve(specs, table("debian-12"), syscall_prefixes=SYSCALL_PREFIXES, check=check)
    assert (len(found.targets), len(found.skipped)) == (1, 33_000)
    # Once for each, for each thousand of names, and for the only part of the recorded symbols.
    assert calls == 33_001 + 34 + 1


@pytest.mark.parametrize("calls", [3, 40])
def test_a_long_list_is_cancelled_while_its_names_are_looked_up(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> None:
        nonlocal calls
        calls -= 1
        if not calls:
            raise AttachCancelledError("cancelled")

    looked_up: list[str] = []

    def find(_table: FunctionTable, names: Iterable[str]) -> dict[str, list[Function]]:
        looked_up.extend(names)
        return {}

    monkeypatch.setattr(FunctionTable, "find", find)
    specs = parse_list("".join(f"no_such_{n}\n" for n in range(50_000)), "list")
    with pytest.raises(AttachCancelledError):
        resolve(specs, table("debian-12"), syscall_prefixes=SYSCALL_PREFIXES, check=check)
    assert 0 < len(looked_up) < 50_000
