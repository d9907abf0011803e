# SPDX-License-Identifier: Apache-2.0
"""The meaning of a ProbeSpec."""

from __future__ import annotations

import pytest
from entries import HERE, PIECES, parse
from hypothesis import given, settings

from batchprobe.errors import SpecError
from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import Kind


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


@settings(deadline=None)
@given(PIECES)
def test_canonical_spelling_parses_to_the_same_spec(text: str) -> None:
    try:
        specs = parse_line(text, HERE)
    except SpecError:
        return
    for spec in specs:
        if spec.kind is Kind.OTHER:
            continue
        again = parse(str(spec))
        assert str(again) == str(spec)
        assert again == spec
