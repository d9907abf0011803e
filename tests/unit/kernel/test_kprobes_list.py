"""How debugfs says that kprobes are armed."""

from __future__ import annotations

from recorded import recorded

from batchprobe.kernel.kprobes_list import parse_breakpoints


def test_what_is_neither_a_jump_nor_at_an_ftrace_site_is_a_breakpoint() -> None:
    text = recorded("debian-12", "kprobes_list").decode()
    found = parse_breakpoints(text)
    names = {line.split()[2] for line in text.splitlines() if int(line.split()[0], 16) in found}
    assert names == {
        "tcp_v4_init_sock+0x5",
        "tcp_v4_md5_hash_headers+0x5",
        "tcp_v4_pre_connect+0x5",
    }
    assert "[FTRACE]" in text


def test_none() -> None:
    assert parse_breakpoints("") == frozenset()
