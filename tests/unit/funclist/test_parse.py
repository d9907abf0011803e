# SPDX-License-Identifier: Apache-2.0
"""Function lists: lines, encoding, and the fast path for plain names."""

from __future__ import annotations

import re

import pytest
from entries import HERE, PIECES
from hypothesis import given, settings
from hypothesis import strategies as st

from batchprobe.errors import SpecError
from batchprobe.funclist import grammar
from batchprobe.funclist.parse import parse_line, parse_list


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
        (b"vfs_read\n\n  tcp_\xff*\n", 3, 7, "byte 0xff is not valid UTF-8"),
        (b"\xff\xfev\0f\0s\0", 1, 1, "byte 0xff is not valid UTF-8"),
        (b"vfs_read\nvfs_\0\n", 2, 5, "NUL byte"),
        (b"vfs_read # fine \xff\nvfs_\xe9 # \xe9t\xe9\n", 2, 5, "byte 0xe9 is not valid UTF-8"),
    ],
)
def test_malformed_list(data: bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_list(data, "funcs.txt")
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_comments_hold_anything() -> None:
    data = b"# caf\xe9 \0\nvfs_read # \xff" + b"x" * 10_000 + b"\nvfs_write"
    assert [str(spec) for spec in parse_list(data, "funcs.txt")] == ["vfs_read", "vfs_write"]


@pytest.mark.parametrize(("malformed", "more"), [(1, 0), (2, 0), (10, 0), (11, 1), (1000, 990)])
def test_ten_malformed_lines_are_reported(malformed: int, more: int) -> None:
    lines = "".join(f"vfs_read\nvfs {n}\n" for n in range(malformed))
    with pytest.raises(SpecError) as caught:
        parse_list(lines, "funcs.txt")
    said = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in said[: min(malformed, 10)]] == [
        f"funcs.txt:{2 * n}:4" for n in range(1, min(malformed, 10) + 1)
    ]
    assert said[10:] == ([f"and {more} more malformed lines"] if more else [])
    assert (caught.value.line, len(caught.value.others)) == (2, malformed - 1)


def test_a_list_is_cancelled_while_it_is_parsed() -> None:
    class CancelledError(Exception):
        pass

    def check() -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        parse_list("vfs_read\n" * 2000, "funcs.txt", check)
    assert len(parse_list("vfs_read\n" * 900, "funcs.txt", check)) == 900


@settings(deadline=None)
@given(st.binary() | st.lists(PIECES).map(lambda lines: "\n".join(lines).encode()))
def test_any_file_is_a_list_or_a_spec_error(data: bytes) -> None:
    try:
        specs = parse_list(data, "funcs.txt")
    except SpecError as error:
        assert 1 <= error.line <= data.count(b"\n") + 1
    else:
        assert len(specs) <= data.count(b"\n") + data.count(b",") + 1


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z_]\w{0,110}|#.*|", fullmatch=True) | PIECES)
def test_the_fast_path_agrees_with_the_grammar(text: str) -> None:
    try:
        expected = grammar.parse(text, HERE)
    except SpecError as error:
        with pytest.raises(SpecError, match=re.escape(str(error))):
            parse_line(text, HERE)
    else:
        assert parse_line(text, HERE) == expected
