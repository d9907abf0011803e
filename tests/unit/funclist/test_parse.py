"""What a function list may say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchprobe.errors import SpecError
from batchprobe.funclist import grammar
from batchprobe.funclist.spec import MAX_LINE, Kind, ProbeSpec, Source, parse_entry, parse_list

HERE = Source("funcs.txt", 7)


def parse(text: str) -> ProbeSpec:
    found = parse_entry(text, HERE)
    assert found is not None
    return found


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
    assert parse_entry(text, HERE) is None


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("vfs_read vfs_write", 9, "white space inside an entry"),
        ("  vfs_read %return", 11, "white space inside an entry"),
        ("/a b/", 3, "white space inside an entry"),
        ("vfs\u00a0read", 4, "white space inside an entry"),
        ("!", 2, "no name"),
        ("%return", 1, "no name"),
        ("+4", 1, "no name"),
        ("ext4:", 6, "no name"),
        (":foo", 1, "no module before the colon"),
        ("/foo", 1, "a regex ends with a slash"),
        ("ext4:/foo", 6, "a regex ends with a slash"),
        ("/foo/x", 1, "a regex ends with a slash"),
        ("//", 2, "an empty regex"),
        ("  /foo(bar/", 7, "not a regex as Python's re takes it: missing ), unterminated"),
        ("/a{99999999999}/", 2, "not a regex"),
        ("/[[:alpha:]]/", 2, "not a regex"),
        ("/" + "(" * 2000 + ")" * 2000 + "/", 2, "not a regex"),
        ("vfs_read+", 9, "'+' is no offset"),
        ("vfs_read+0x", 9, "'+0x' is no offset"),
        ("vfs_read+-1", 9, "'+-1' is no offset"),
        ("tcp_*+4", 6, "an offset needs one function by its exact name"),
        ("/tcp/+4", 6, "an offset needs one function by its exact name"),
        ("vfs_read+4%return", 9, "a return probe takes no offset"),
        ("vfs_read%retrun", 9, "'%retrun': only %return may follow"),
        ("vfs_read%", 9, "'%': only %return may follow"),
        ("vfs_read%return+4", 9, "'%return+4': only %return may follow"),
        ("vfs-read", 4, "'-' cannot stand here: a name has letters"),
        ("vfs_read#why", 9, "a comment needs white space before it"),
        ("vfs_read()", 9, "'(' cannot stand here"),
        ("a:b:c", 4, "':' cannot stand here"),
        ("!!foo", 2, "'!' cannot stand here"),
        ("tcp_[", 5, "'[' cannot stand here"),
        ("tcp_[]", 5, "'[' cannot stand here"),
        ("tcp_]*", 5, "']' cannot stand here"),
        ("ex*4]:foo", 5, "']' cannot stand here: a module has"),
        ("f\u00fcr", 2, "'\u00fc' cannot stand here"),
        ("8250_init", 1, "'8250_init' begins with a digit"),
        ("0xyz", 1, "'0xyz' is no address"),
        ("0x12345678901234567", 1, "is no address"),
        ("0x1234+4", 7, "an address takes no offset"),
        ("ext4:0x1234", 1, "an address stands alone"),
        ("syscall:0x1234", 1, "an address stands alone"),
        ("!0x1234", 1, "an exclude leaves out whole functions"),
        ("!vfs_read+4", 1, "an exclude leaves out whole functions"),
        ("!vfs_read%return", 1, "an exclude leaves out whole functions"),
        ("x" * (MAX_LINE + 1), 1, f"a line of {MAX_LINE + 1} characters"),
    ],
)
def test_malformed(text: str, column: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_entry(text, HERE)
    assert message in caught.value.message
    assert (caught.value.file, caught.value.line, caught.value.column) == ("funcs.txt", 7, column)


def test_list() -> None:
    data = b"\xef\xbb\xbf# first\r\nvfs_read\r\n\r\n!vfs_w*\t# not \xc3\xbcber\r\nvfs_write"
    specs = parse_list(data, "funcs.txt")
    assert [(str(spec), str(spec.source)) for spec in specs] == [
        ("vfs_read", "funcs.txt:2"),
        ("!vfs_w*", "funcs.txt:4"),
        ("vfs_write", "funcs.txt:5"),
    ]
    assert parse_list(data.decode(), "funcs.txt") == specs
    assert parse_list(b"", "funcs.txt") == []


@pytest.mark.parametrize(
    ("data", "line", "column", "message"),
    [
        (b"vfs_read\nvfs write\n", 2, 4, "white space"),
        (b"\xef\xbb\xbfvfs write\n", 1, 4, "white space"),
        (b"vfs_read\n\n  tcp_\xff*\n", 3, 7, "the byte 0xff, which is not UTF-8"),
        (b"\xff\xfev\0f\0s\0", 1, 1, "the byte 0xff, which is not UTF-8"),
        (b"vfs_read\nvfs_\0\n", 2, 5, "a NUL byte"),
        (b"# \0", 1, 3, "a NUL byte"),
    ],
)
def test_malformed_list(data: bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_list(data, "funcs.txt")
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "name", "matches"),
    [
        ("tcp_*", "tcp_sendmsg", True),
        ("tcp_*", "mptcp_sendmsg", False),
        ("*_sendmsg", "tcp_sendmsg_locked", False),
        ("tcp_v[46]_rcv", "tcp_v6_rcv", True),
        ("tcp_v[!4]_rcv", "tcp_v4_rcv", False),
        ("tcp_v[^4]_rcv", "tcp_v4_rcv", False),
        ("a.b*", "axb", False),
        ("/sendmsg/", "tcp_sendmsg_locked", True),
        ("/^sendmsg/", "tcp_sendmsg", False),
        ("/(?i)TCP/", "mptcp_x", True),
    ],
)
def test_matcher(text: str, name: str, matches: bool) -> None:
    assert bool(parse(text).matcher()(name)) is matches


@pytest.mark.parametrize(
    ("text", "module", "reaches"),
    [
        ("x", "", True),
        ("x", "ext4", True),
        ("ext4:x", "ext4", True),
        ("ext4:x", "", False),
        ("vmlinux:x", "", True),
        ("vmlinux:x", "ext4", False),
        ("ext?:x", "ext4", True),
        ("*:x", "", True),
        ("snd-*:x", "snd_hda", True),
    ],
)
def test_in_module(text: str, module: str, reaches: bool) -> None:
    assert parse(text).in_module(module) is reaches


# Text made of what entries are made of gets further than any text.
PIECES = st.lists(
    st.sampled_from(
        [*"!:/+%*[]?-^()$.\\#9{}é \n\r\0", "vfs_read", "ext4", "syscall", "0x1c", "return"]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(PIECES | st.text())
def test_any_text_is_an_entry_or_a_spec_error(text: str) -> None:
    try:
        parse_entry(text, HERE)
    except SpecError as error:
        assert error.line == HERE.line
        assert 1 <= error.column <= len(text) + 1


@settings(deadline=None)
@given(st.binary() | st.lists(PIECES).map(lambda lines: "\n".join(lines).encode()))
def test_any_file_is_a_list_or_a_spec_error(data: bytes) -> None:
    try:
        specs = parse_list(data, "funcs.txt")
    except SpecError as error:
        assert 1 <= error.line <= data.count(b"\n") + 1
    else:
        assert len(specs) <= data.count(b"\n") + 1


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z_]\w{0,110}|#.*|", fullmatch=True) | PIECES)
def test_what_needs_no_grammar_is_what_it_makes_of_it(text: str) -> None:
    try:
        expected = grammar.parse(text, HERE)
    except SpecError as error:
        with pytest.raises(SpecError, match=re.escape(str(error))):
            parse_entry(text, HERE)
    else:
        assert parse_entry(text, HERE) == expected


@settings(deadline=None)
@given(PIECES)
def test_plainest_spelling_means_the_same(text: str) -> None:
    try:
        spec = parse_entry(text, HERE)
    except SpecError:
        return
    if spec is not None:
        again = parse(str(spec))
        assert str(again) == str(spec)
        assert again._replace(text=spec.text) == spec
