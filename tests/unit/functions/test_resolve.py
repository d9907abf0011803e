# SPDX-License-Identifier: Apache-2.0
"""Resolving entries to targets and skips, on lists recorded from real kernels."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import KERNELS, SYSCALL_PREFIXES, table

from batchprobe.errors import SpecError
from batchprobe.funclist.parse import parse_line, parse_list
from batchprobe.funclist.spec import Kind, Source
from batchprobe.functions.resolve import resolve
from batchprobe.functions.table import FunctionTable
from batchprobe.functions.targets import Reason, Resolution, Target

KERNEL = "debian-12"


def run(text: str, functions: FunctionTable | None = None) -> Resolution:
    specs = parse_list(text, "funcs.txt")
    return resolve(specs, functions or table(KERNEL), syscall_prefixes=SYSCALL_PREFIXES)


def labels(text: str) -> list[str]:
    """Return the labels of a list that must resolve without skips."""
    resolution = run(text)
    assert resolution.skipped == []
    return [target.label for target in resolution.targets]


def skip(text: str) -> str:
    """Return the message of a list that must resolve to one skip and no target."""
    resolution = run(text)
    assert resolution.targets == []
    (skipped,) = resolution.skipped
    return skipped.message


def only(text: str) -> Target:
    """Return the target of a list that must resolve to one target and no skip."""
    resolution = run(text)
    assert resolution.skipped == []
    (target,) = resolution.targets
    return target


def address_of(name: str) -> int:
    (function,) = table(KERNEL).named(name)
    return function.address


def test_name() -> None:
    target = only("vfs_read")
    assert (target.label, target.name, target.module) == ("vfs_read", "vfs_read", "")
    assert (target.offset, target.is_return, target.pending) == (0, False, False)
    assert target.address == address_of("vfs_read")
    assert str(target.spec.source) == "funcs.txt:1"


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        ("vfs_read%return", "vfs_read%return"),
        ("vfs_read+0x10", "vfs_read+0x10"),
        ("vfs_read+16", "vfs_read+0x10"),
        ("vfs_read+0", "vfs_read"),
        ("vmlinux:vfs_read", "vfs_read"),
        ("mbcache:mb_cache_create", "mbcache:mb_cache_create"),
        ("mb_cache_create", "mbcache:mb_cache_create"),
        ("m?cache:mb_cache_create%return", "mbcache:mb_cache_create%return"),
        ("virtio-blk:virtblk_probe", "virtio_blk:virtblk_probe"),
        ("tcp_add_reno_sack", "tcp_add_reno_sack.part.0"),
        ("tcp_add_reno_sack.part.0", "tcp_add_reno_sack.part.0"),
        ("syscall:openat", "syscall:openat"),
        ("syscall:openat%return", "syscall:openat%return"),
        ("__x64_sys_openat", "__x64_sys_openat"),
        ("crc16:crc16", "crc16:crc16"),
        ("/^vfs_readv$/", "vfs_readv"),
        ("syscall:/^openat2/", "syscall:openat2"),
    ],
)
def test_label(entry: str, label: str) -> None:
    assert only(entry).label == label


def test_address() -> None:
    address = address_of("vfs_read")
    assert only(f"{address:#x}").label == "vfs_read"
    assert only(f"{address:#x}%return").label == "vfs_read%return"
    target = only(f"{address + 9:#x}")
    assert (target.label, target.offset, target.address) == ("vfs_read+0x9", 9, address + 9)


def test_patterns() -> None:
    assert sorted(labels("vfs_read*")) == ["vfs_read", "vfs_readlink", "vfs_readv"]
    assert sorted(labels("/^tcp_(send|recv)msg$/")) == ["tcp_recvmsg", "tcp_sendmsg"]
    assert sorted(labels("syscall:open*")) == [
        *("syscall:open", "syscall:open_by_handle_at", "syscall:open_tree"),
        *("syscall:openat", "syscall:openat2"),
    ]
    assert all(label.startswith("mbcache:mb_cache_") for label in labels("mbcache:mb_cache_*"))
    assert set(labels("vmlinux:init_once*")).isdisjoint(labels("ext4:init_once"))


def test_only_the_first_prefix_that_matches_counts() -> None:
    """Where wrappers exist, a function that merely starts with sys_ is not a system call."""
    text = """\
ffffffff81000000 T _stext
ffffffff81000000 T __x64_sys_read
ffffffff81000100 T sys_ni_syscall
ffffffff81000200 T _etext
"""
    functions = FunctionTable.from_text(text.encode())
    assert [t.label for t in run("syscall:*", functions).targets] == ["syscall:read"]
    plain = FunctionTable.from_text(text.replace("__x64_sys_read", "sys_read").encode())
    assert [t.label for t in run("syscall:read", plain).targets] == ["syscall:read"]


def test_functions_of_one_name() -> None:
    targets = run("type_show").targets
    assert len(targets) == len(table(KERNEL).named("type_show"))
    assert {target.label for target in targets} == {
        f"type_show@{target.address:#x}" for target in targets
    }
    by_module = Counter(target.module for target in run("init_once").targets)
    assert by_module["ext4"] == 1
    assert by_module[""] > 1
    assert "ext4:init_once" in [target.label for target in run("init_once").targets]
    assert only("ext4:init_once").label == "ext4:init_once"


def test_duplicates_count_once() -> None:
    assert labels("vfs_read\nvfs_read\nvfs_read+0\n/^vfs_read$/\nvmlinux:vfs_r[e]ad") == [
        "vfs_read"
    ]
    assert labels("vfs_read\nvfs_read%return") == ["vfs_read", "vfs_read%return"]
    # Two names of one address.
    assert labels("syscall:getpid\n__do_sys_getpid\n__x64_sys_getpid") == ["syscall:getpid"]
    assert labels("__x64_sys_getpid\nsyscall:getpid") == ["__x64_sys_getpid"]


def test_exclusions_cover_the_whole_list() -> None:
    assert sorted(labels("!vfs_readv\nvfs_read*")) == ["vfs_read", "vfs_readlink"]
    assert sorted(labels("vfs_read*\n!/v$/")) == ["vfs_read", "vfs_readlink"]
    assert labels("vfs_read+4\nvfs_readv\n!vfs_write") == ["vfs_read+0x4", "vfs_readv"]
    assert "ext4:init_once" not in labels("init_once\n!ext4:*")
    assert "syscall:getpid" not in labels("syscall:get*\n!syscall:getpid")
    # Under any name of the address, and under the name of a clone.
    assert skip("__x64_sys_getpid\n!__do_sys_getpid").startswith("excluded")
    assert skip("tcp_add_reno_sack.part.0\n!tcp_add_reno_sack").startswith("excluded")


def test_omitted_by_patterns() -> None:
    resolution = run("/^(do_int3|__die|tcp_init|vfs_read)$/\n!vfs_read\nvfs_write\ndo_int*")
    assert [target.label for target in resolution.targets] == ["vfs_write"]
    # Each counts once, however many patterns match it.
    assert resolution.omitted == {Reason.BLACKLISTED: 2, Reason.INIT: 1, Reason.EXCLUDED: 1}
    assert [skipped.message for skipped in resolution.skipped] == [
        "no match: no matching function can be probed: "
        "2 blacklisted by the kernel, 1 excluded, 1 freed after boot",
        "no match: no matching function can be probed: 1 blacklisted by the kernel",
    ]


def test_patterns_omit_functions_ftrace_cannot_trace() -> None:
    name = ".E_copy"
    assert not table(KERNEL).is_traceable(table(KERNEL).named(name)[0])
    assert skip(".E_*").startswith("no match: no matching function can be probed:")
    assert only(name).label == name
    # Unless ftrace's list is unreadable.
    functions = table(KERNEL, traceable=False)
    assert name in [target.label for target in run(".E_*", functions).targets]


def test_unreadable_blacklist() -> None:
    assert [t.label for t in run("do_int3", table(KERNEL, blacklist=False)).targets] == ["do_int3"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "vfs_raed",
            "unknown function: inlined by the compiler, or not in this kernel; "
            "similar names: vfs_read, vfs_readv",
        ),
        (
            "xyzzy_plugh",
            "unknown function: inlined by the compiler, or not in this kernel",
        ),
        (
            "syscall:opnat",
            "unknown function: this kernel has no such system call on this architecture; "
            "similar names: openat, openat2",
        ),
        ("ext4:vfs_read", "unknown function: vfs_read is not in ext4, but in vmlinux"),
        (
            "crc16:cleanup_module",
            "unknown function: cleanup_module is not in crc16, but in mbcache, ",
        ),
        ("0x1234", "unknown function: no function contains 0x1234"),
        ("linux_banner", "not a function: linux_banner is data, padding or part of a function"),
        ("_stext", "not a function: "),
        ("file_tty_write.constprop.0.cold", "not a function: "),
        ("do_int3", "blacklisted by the kernel: see /sys/kernel/debug/kprobes/blacklist"),
        ("do_int3+1", "blacklisted by the kernel: see /sys/kernel/debug/kprobes/blacklist"),
        ("tcp_init", "freed after boot: an __init function"),
        ("vfs_read+0x10000", "bad offset: +0x10000 is outside vfs_read, which has 0x"),
        ("xyzzy_*", "no match: no function has a matching name; is its module loaded?"),
        ("ext4:xyzzy_*", "no match: no function has a matching name in ext4"),
        ("btrfs:btrfs_*", "module not loaded: run modprobe btrfs first"),
        ("btr*:btrfs_sync", "module not loaded: no loaded module matches btr*"),
        ("vfs_read\n!vfs_*", "excluded: by !vfs_* (funcs.txt:2)"),
        ("vfs_re*\n!vfs_*", "excluded: all 5 matches, by !vfs_* (funcs.txt:2)"),
        ("btrfs:btrfs_sync\n!btrfs:*", "excluded: by !btrfs:* (funcs.txt:2)"),
        ("btrfs:btrfs_sync\n!btrfs_sync", "excluded: by !btrfs_sync (funcs.txt:2)"),
    ],
)
def test_skip(entry: str, message: str) -> None:
    assert skip(entry).startswith(message)


def test_return_probe_in_the_middle() -> None:
    address = address_of("vfs_read")
    assert skip(f"{address + 4:#x}%return").startswith(
        "bad offset: %return needs the start of a function, not vfs_read+0x4"
    )


def test_skips_name_file_and_line() -> None:
    (skipped,) = run("vfs_read\n  vfs_raed  # typo").skipped
    assert skipped.entry == "vfs_raed"
    assert skipped.source == Source("funcs.txt", 2)
    assert str(skipped) == f"funcs.txt:2: vfs_raed: {skipped.message}"


def test_pending() -> None:
    target = only("btr-fs:btrfs_sync+0x10")
    assert (target.pending, target.address, target.function) == (True, None, None)
    assert (target.module, target.name, target.offset) == ("btr_fs", "btrfs_sync", 16)
    assert target.label == "btr_fs:btrfs_sync+0x10"
    assert only("x:f%return").label == "x:f%return"
    assert labels("x:f\nx:f\nx:f%return\nx:g\n!y:*\n!vfs_*") == ["x:f", "x:f%return", "x:g"]


def test_excluding_one_of_several_functions_is_not_a_skip() -> None:
    resolution = run("init_once\n!ext4:init_once")
    assert resolution.skipped == []
    assert {target.module for target in resolution.targets} == {""}


def test_suggestions_are_bounded() -> None:
    """Rejecting a list made for another kernel must not take minutes."""
    resolution = run("\n".join(f"vfs_raed{'x' * n}" for n in range(40)))
    suggested = ["; there is" in skipped.detail for skipped in resolution.skipped]
    assert len(suggested) == 40
    assert sum(suggested) <= 10


@pytest.mark.parametrize("kernel", KERNELS)
def test_everything(kernel: str) -> None:
    resolution = run("/./", table(kernel))
    assert resolution.skipped == []
    assert len(resolution.targets) > 300
    for target in resolution.targets:
        assert target.function
        assert table(kernel).is_traceable(target.function)
        assert not table(kernel).is_blacklisted(target.function.address)
    assert set(resolution.omitted) == {Reason.BLACKLISTED, Reason.NOTRACE, Reason.INIT}


@pytest.mark.parametrize("kernel", KERNELS)
def test_labels_of_system_calls_are_the_same_on_all_kernels(kernel: str) -> None:
    found = run("syscall:openat\nsyscall:getpid\nsyscall:read%return", table(kernel)).targets
    assert [target.label for target in found] == [
        *("syscall:openat", "syscall:getpid", "syscall:read%return"),
    ]


def test_example() -> None:
    """The example list shows every form of entry and is well-formed, including its comments."""
    file = Path(__file__).parents[3] / "examples" / "funcs.txt"
    specs = parse_list(file.read_bytes(), file.name)
    assert {spec.kind for spec in specs} == {Kind.NAME, Kind.GLOB, Kind.REGEX}
    assert any(spec.is_return for spec in specs)
    assert any(spec.exclude for spec in specs)
    assert any(spec.syscall for spec in specs)
    commented = re.findall(r"^#(\S.*)$", file.read_text(), re.MULTILINE)
    others = parse_list("\n".join(commented), file.name)
    assert len(others) == len(commented) > 3
    assert any(spec.offset for spec in others)
    assert any(spec.address for spec in others)


ENTRIES = st.lists(
    st.sampled_from(
        [
            *("vfs_read", "vfs_re*", "!vfs_readv", "!vfs_*", "vfs_read+4", "vfs_read+0xfffff"),
            *("vfs_read%return", "vfs_re*%return", "type_show", "init_once", "ext4:init_once"),
            *("vmlinux:init_*", "!ext4:*", "syscall:get*", "syscall:getpid", "__do_sys_getpid"),
            *("syscall:xyzzy", "tcp_add_reno_sack", "nope_*", "nope", "nope:nope", "nope:n*"),
            *("linux_banner", "do_int3", "tcp_init", "/die/", "0x1234", "!nope", ".E_copy"),
            *("cleanup_module", "mbcache_exit", "mbcache:*", "*:*_exit", "!syscall:getpid"),
        ]
    ),
    max_size=12,
)


@settings(deadline=None)
@given(ENTRIES, st.sampled_from(KERNELS), st.booleans())
def test_every_entry_becomes_a_target_or_a_skip(
    entries: list[str], kernel: str, known: bool
) -> None:
    functions = table(kernel, traceable=known, blacklist=known)
    specs = parse_list("\n".join(entries), "funcs.txt")
    resolution = resolve(specs, functions, syscall_prefixes=SYSCALL_PREFIXES)
    every_label = [target.label for target in resolution.targets]
    assert len(every_label) == len(set(every_label))
    sites = [(target.address or target.label, target.is_return) for target in resolution.targets]
    assert len(sites) == len(set(sites))

    excludes = [spec for spec in specs if spec.exclude]
    targeted = {target.spec.source for target in resolution.targets}
    skipped = {skipped.source for skipped in resolution.skipped}
    for number, spec in enumerate(specs):
        alone = resolve([*excludes, spec], functions, syscall_prefixes=SYSCALL_PREFIXES)
        if spec.exclude:
            assert spec.source not in targeted | skipped
        elif spec.source not in targeted | skipped:
            # Earlier entries mean all of its sites.
            before = resolve(
                [*excludes, *specs[:number]], functions, syscall_prefixes=SYSCALL_PREFIXES
            )
            have = {(target.address or target.label, target.is_return) for target in before.targets}
            assert {(t.address or t.label, t.is_return) for t in alone.targets} <= have
        # Other entries do not change what this one means.
        assert {(t.address or t.label, t.is_return) for t in alone.targets} <= set(sites)
    for target in resolution.targets:
        if target.function and target.function.size:
            assert target.offset < target.function.size


@settings(deadline=None)
@given(st.text(alphabet="vfs_readtcp*?[]!:+%0x19/^$.()", max_size=16))
def test_any_entry_resolves(text: str) -> None:
    try:
        specs = parse_line(text, Source("funcs.txt", 1))
    except SpecError:
        return
    resolution = resolve(specs, table(KERNEL), syscall_prefixes=SYSCALL_PREFIXES)
    if any(not spec.exclude for spec in specs):
        assert resolution.targets or resolution.skipped


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(["*", "?", "[a-t]", "[!v]", "[^v]", "tcp", "_", "vfs_read", "s", "."]),
        min_size=1,
        max_size=5,
    ).map("".join)
)
def test_the_fixed_part_of_a_glob_excludes_no_match(glob: str) -> None:
    [spec] = parse_line(glob, Source("list", 1))
    functions = table("debian-12")
    match = re.compile(fnmatch.translate(glob.replace("[^", "[!"))).match
    assert functions.matching(match, containing=spec.fixed_part) == functions.matching(match)


def test_namesakes_that_get_no_probe_are_named() -> None:
    """An offset may be inside one function of a name and outside another."""
    namesakes = {function.size: function for function in table(KERNEL).named("type_show")}
    smallest = namesakes[min(namesakes)]
    found = run(f"type_show+{smallest.size:#x}")
    assert found.targets
    assert all(skipped.reason is Reason.BAD_OFFSET for skipped in found.skipped)
    assert f"type_show@{smallest.address:#x}" in ", ".join(s.function for s in found.skipped)


def test_one_match() -> None:
    assert skip("vfs_rea?\n!vfs_read").startswith("excluded: all 1 match, by !vfs_read")
