"""debugfs' kprobes/list: how the kernel has armed each kprobe."""

from __future__ import annotations

from batchprobe.sys.files import read_text

__all__ = ["breakpoints", "parse_breakpoints"]

_LIST = "/sys/kernel/debug/kprobes/list"


def breakpoints() -> frozenset[int]:
    """The addresses of armed kprobes whose every hit is a trap.

    Not those at ftrace sites, nor those that are or will soon be jumps: the kernel says so from
    their arming on (optimize_kprobe(), kernel/kprobes.c, Linux 6.1). Empty if it can't be read.
    """
    try:
        return parse_breakpoints(read_text(_LIST))
    except OSError:
        # Without debugfs or under lockdown.
        return frozenset()


def parse_breakpoints(text: str) -> frozenset[int]:
    """The same from the file's text: what is special about a kprobe is in brackets."""
    return frozenset(int(line.split()[0], 16) for line in text.splitlines() if "[" not in line)
