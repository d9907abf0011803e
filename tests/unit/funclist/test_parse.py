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
from batchprobe.funclist.parse import parse_entry, parse_list


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
        (b"# \0", 1, 3, "NUL byte"),
    ],
)
def test_malformed_list(data: bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_list(data, "funcs.txt")
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


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
def test_the_fast_path_agrees_with_the_grammar(text: str) -> None:
    try:
        expected = grammar.parse(text, HERE)
    except SpecError as error:
        with pytest.raises(SpecError, match=re.escape(str(error))):
            parse_entry(text, HERE)
    else:
        assert parse_entry(text, HERE) == expected
