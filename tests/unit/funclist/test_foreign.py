# SPDX-License-Identifier: Apache-2.0
"""Entries as other tools write them."""

from __future__ import annotations

import pytest
from entries import HERE, parse
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.errors import SpecError
from batchprobe.funclist.foreign import syscall_of, translate
from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import Kind


@pytest.mark.parametrize(
    ("text", "own"),
    [
        # ftrace
        ("ext4_sync_file [ext4]", "ext4:ext4_sync_file"),
        ("!ext4_*\t[ext4]", "!ext4:ext4_*"),
        ("snd_x [snd-hda-intel]", "snd_hda_intel:snd_x"),
        ("schedule (1)           \tR I", "schedule"),
        ("ext4_sync_file [ext4] (2)", "ext4:ext4_sync_file"),
        # bpftrace, bcc
        ("kprobe:vfs_read", "vfs_read"),
        ("kretprobe:vfs_*", "vfs_*%return"),
        ("k:vfs_write", "vfs_write"),
        ("kr:vfs_write", "vfs_write%return"),
        ("kprobe:ext4:ext4_sync_file", "ext4:ext4_sync_file"),
        ("kprobe:vfs_read+4", "vfs_read+0x4"),
        ("fentry:vmlinux:vfs_open", "vmlinux:vfs_open"),
        ("fexit:vmlinux:vfs_open", "vmlinux:vfs_open%return"),
        ("kfunc:vfs_open", "vfs_open"),
        ("!kprobe:vfs_read", "!vfs_read"),
        ("p::vfs_read", "vfs_read"),
        ("r::vfs_read", "vfs_read%return"),
        # kprobe_events
        ("p:vfs_read", "vfs_read"),
        ("r:vfs_read", "vfs_read%return"),
        ("p vfs_read", "vfs_read"),
        ("p:mygroup/myevent vfs_write", "vfs_write"),
        ("p:myevent vfs_write+8", "vfs_write+0x8"),
        ("r8:probes/ret ext4:ext4_sync_file", "ext4:ext4_sync_file%return"),
        ("p:a/b vfs_read%return", "vfs_read%return"),
        # people
        ("vfs_read:return", "vfs_read%return"),
        ("ext4:ext4_sync_file:return", "ext4:ext4_sync_file%return"),
        ("vfs_read()", "vfs_read"),
        ("kernel:vfs_read", "vmlinux:vfs_read"),
        ("syscall:__x64_sys_openat", "syscall:openat"),
        ("syscall:sys_openat", "syscall:openat"),
        ("syscall:__x64_sys_openat%return", "syscall:openat%return"),
        ("kernel:vfs_read:return", "vmlinux:vfs_read%return"),
        ("kprobe:vfs_read:return", "vfs_read%return"),
        ("kretprobe:vfs_read:return", "vfs_read%return"),
        ("vfs_read():return", "vfs_read%return"),
        ("kernel:vfs_read()", "vmlinux:vfs_read"),
        ("/^tcp_/:return", "/^tcp_/%return"),
    ],
)
def test_translation(text: str, own: str) -> None:
    spec = parse(text)
    assert str(spec) == own
    assert spec.text == text
    assert spec.hint is None


@pytest.mark.parametrize(
    ("text", "own", "address"),
    [
        ("ffffffff81234560 T vfs_read", "vfs_read", 0xFFFFFFFF81234560),
        ("ffffffffc0123450 t ext4_sync_file\t[ext4]", "ext4:ext4_sync_file", 0xFFFFFFFFC0123450),
        ("ffffffff81234560 vfs_read", "vfs_read", 0xFFFFFFFF81234560),
        ("c0123450 t foo.isra.0", "foo.isra.0", 0xC0123450),
        ("0000000000000000 W vfs_read", "vfs_read", 0),
    ],
)
def test_a_symbol_keeps_its_address_as_a_hint(text: str, own: str, address: int) -> None:
    spec = parse(text)
    assert (str(spec), spec.kind, spec.hint) == (own, Kind.NAME, address)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tracepoint:block:block_rq_issue", "a tracepoint"),
        ("t:sched:sched_switch", "a tracepoint"),
        ("rawtracepoint:sched_switch", "a tracepoint"),
        ("uprobe:/bin/bash:readline", "a probe in a user program"),
        ("u:c:malloc", "a probe in a user program"),
        ("profile:hz:99", "a probe of bpftrace that is on no function"),
    ],
)
def test_what_is_no_function(text: str, what: str) -> None:
    spec = parse(text)
    assert spec.kind is Kind.OTHER
    assert spec.name.startswith(what)


@pytest.mark.parametrize(
    "text",
    ["vfs_read", "tcp_*", "/^a b$/", "ext4:x", "vmlinux:/x/", "syscall:openat", "0x1234", "!x",
     "sched:sched_switch", "vfs read", "vfs_read%return", "deadbeef"],
)  # fmt: skip
def test_our_own_spelling_is_left_alone(text: str) -> None:
    assert translate(text) is None


@given(st.text(max_size=40))
def test_any_text_has_a_meaning_or_an_error(text: str) -> None:
    try:
        assert all(spec.text for spec in parse_line(text, HERE))
    except SpecError as error:
        assert str(error).startswith("funcs.txt:7:")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sys_clone", "clone"),
        ("SyS_openat", "openat"),
        ("__x64_sys_openat", "openat"),
        ("__arm64_compat_sys_open", "open"),
        ("compat_sys_open", "open"),
        ("__do_sys_clone", "clone"),
        ("ksys_read", ""),
        ("sysfs_create", ""),
        ("vfs_read", ""),
    ],
)
def test_names_of_system_calls(name: str, call: str) -> None:
    assert syscall_of(name) == call
