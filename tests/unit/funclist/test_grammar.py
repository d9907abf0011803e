# SPDX-License-Identifier: Apache-2.0
"""The grammar of an entry, and the error for each way to break it."""

from __future__ import annotations

import pytest
from entries import HERE, PIECES, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from batchprobe.errors import SpecError
from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import MAX_LINE, Kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vfs_read", {"kind": Kind.NAME, "name": "vfs_read"}),
        ("  vfs_read\t# why", {"kind": Kind.NAME, "name": "vfs_read", "text": "vfs_read"}),
        ("foo.isra.0", {"kind": Kind.NAME, "name": "foo.isra.0"}),
        ("tcp_*", {"kind": Kind.GLOB, "name": "tcp_*"}),
        ("ext[2-4]_?get", {"kind": Kind.GLOB, "name": "ext[2-4]_?get"}),
        ("/^tcp_(send|recv)msg$/", {"kind": Kind.REGEX, "name": "^tcp_(send|recv)msg$"}),
        ("/a:b+c%d/e/%return", {"kind": Kind.REGEX, "name": "a:b+c%d/e", "is_return": True}),
        ("/x#y/", {"kind": Kind.REGEX, "name": "x#y"}),
        ("!tcp_v6_*", {"kind": Kind.GLOB, "name": "tcp_v6_*", "exclude": True}),
        ("!ext4:/get/", {"kind": Kind.REGEX, "module": "ext4", "exclude": True}),
        ("snd-hda-intel:azx_*", {"module": "snd_hda_intel", "name": "azx_*"}),
        ("nf_[a-c]-*:x", {"module": "nf_[a-c]_*", "name": "x", "kind": Kind.NAME}),
        ("vmlinux:init_once", {"module": "vmlinux", "name": "init_once"}),
        ("vfs_read+0x1c", {"name": "vfs_read", "offset": 28}),
        ("vfs_read+28", {"name": "vfs_read", "offset": 28}),
        ("vfs_read%return", {"name": "vfs_read", "is_return": True}),
        ("tcp_*%return", {"name": "tcp_*", "is_return": True}),
        ("syscall:openat", {"name": "openat", "syscall": True, "module": None}),
        ("syscall:*at%return", {"name": "*at", "syscall": True, "is_return": True}),
        ("0xffffffff81234567", {"kind": Kind.ADDRESS, "address": 0xFFFFFFFF81234567, "name": ""}),
        ("0XC0DE%return", {"kind": Kind.ADDRESS, "address": 0xC0DE, "is_return": True}),
    ],
)
def test_entry(text: str, expected: dict[str, object]) -> None:
    spec = parse(text)
    assert {name: getattr(spec, name) for name in expected} == expected
    assert spec.source == HERE


@pytest.mark.parametrize("text", ["", "   ", "\t\r", "# vfs_read", "  #", "#"])
def test_nothing(text: str) -> None:
    assert parse_line(text, HERE) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vfs_read, vfs_write", ["vfs_read", "vfs_write"]),
        ("vfs_open,vfs_statx,", ["vfs_open", "vfs_statx"]),
        (" !vfs_r*,\text4:ext4_get # a, b", ["!vfs_r*", "ext4:ext4_get"]),
        ("kprobe:vfs_read,kretprobe:vfs_read", ["vfs_read", "vfs_read%return"]),
        ("/a{1,2}/", ["/a{1,2}/"]),
        ("!/a,b/", ["!/a,b/"]),
        ("ext4:/a{1,2}/%return", ["ext4:/a{1,2}/%return"]),
    ],
)
def test_commas_separate_entries(text: str, expected: list[str]) -> None:
    assert [str(spec) for spec in parse_line(text, HERE)] == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (" , ", 1, "commas separate entries, and there is none"),
        ("vfs_read,  vfs_wr ite", 18, "white space inside an entry"),
        ("kprobe:vfs read", 1, "'kprobe:vfs read' means 'vfs read': white space"),
        ("x, p:a/b vfs_read fd=%di", 4, "arguments of a probe are not recorded: write vfs_read"),
        ("vfs_read vfs_write", 9, "white space inside an entry"),
        ("  vfs_read %return", 11, "white space inside an entry"),
        ("/a b/", 3, "white space inside an entry"),
        ("vfs\u00a0read", 4, "white space inside an entry"),
        ("!", 2, "missing name"),
        ("%return", 1, "missing name"),
        ("+4", 1, "missing name"),
        ("ext4:", 6, "missing name"),
        (":foo", 1, "missing module before the colon"),
        ("/foo", 1, "a regex must end with a slash"),
        ("ext4:/foo", 6, "a regex must end with a slash"),
        ("/foo/x", 1, "a regex must end with a slash"),
        ("//", 2, "empty regex"),
        ("  /foo(bar/", 7, "not a valid Python regex: missing ), unterminated"),
        ("/a{99999999999}/", 2, "not a valid Python regex"),
        ("/[[:alpha:]]/", 2, "not a valid Python regex"),
        ("/" + "(" * 2000 + ")" * 2000 + "/", 2, "not a valid Python regex"),
        ("vfs_read+", 9, "'+' is not an offset"),
        ("vfs_read+0x", 9, "'+0x' is not an offset"),
        ("vfs_read+-1", 9, "'+-1' is not an offset"),
        ("tcp_*+4", 6, "an offset needs an exact function name"),
        ("/tcp/+4", 6, "an offset needs an exact function name"),
        ("vfs_read+4%return", 9, "a return probe takes no offset"),
        ("vfs_read%retrun", 9, "unexpected '%retrun': only %return may follow"),
        ("vfs_read%", 9, "unexpected '%': only %return may follow"),
        ("vfs_read%return+4", 9, "unexpected '%return+4': only %return may follow"),
        ("vfs-read", 4, "unexpected '-': a name may contain letters"),
        ("vfs_read#why", 9, "a comment needs white space before it"),
        ("a:b:c", 4, "unexpected ':'"),
        ("!!foo", 2, "unexpected '!'"),
        ("tcp_[", 5, "unexpected '['"),
        ("tcp_[]", 5, "unexpected '['"),
        ("tcp_]*", 5, "unexpected ']'"),
        ("ex*4]:foo", 5, "unexpected ']': a module may contain"),
        ("f\u00fcr", 2, "unexpected '\u00fc'"),
        ("8250_init", 1, "'8250_init' starts with a digit"),
        ("0xyz", 1, "'0xyz' is not an address"),
        ("0x12345678901234567", 1, "is not an address"),
        ("0x1234+4", 7, "an address takes no offset"),
        ("ext4:0x1234", 1, "an address takes no module"),
        ("syscall:0x1234", 1, "an address takes no module"),
        ("!0x1234", 1, "an exclusion covers whole functions"),
        ("!vfs_read+4", 1, "an exclusion covers whole functions"),
        ("!vfs_read%return", 1, "an exclusion covers whole functions"),
        ("x" * (MAX_LINE + 1), 1, f"line of {MAX_LINE + 1} characters: the limit is {MAX_LINE}"),
    ],
)
def test_malformed(text: str, column: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_line(text, HERE)
    assert message in caught.value.message
    assert (caught.value.file, caught.value.line, caught.value.column) == ("funcs.txt", 7, column)


@settings(deadline=None)
@given(PIECES | st.text())
def test_any_text_is_an_entry_or_a_spec_error(text: str) -> None:
    try:
        parse_line(text, HERE)
    except SpecError as error:
        assert error.line == HERE.line
        assert 1 <= error.column <= len(text) + 1
