# SPDX-License-Identifier: Apache-2.0
"""Parses kprobes/list of debugfs: how the kernel implements each kprobe."""

from __future__ import annotations

from batchprobe.sys.files import read_text

__all__ = ["breakpoints", "parse_breakpoints"]

_LIST = "/sys/kernel/debug/kprobes/list"


def breakpoints() -> frozenset[int]:
    """Return the addresses of armed kprobes that trap on every hit; none if the list is unreadable.

    This leaves out ftrace-based kprobes and those that are or will be jump-optimized: the kernel
    marks the latter as soon as they are armed (optimize_kprobe(), kernel/kprobes.c, Linux 6.1).
    """
    try:
        return parse_breakpoints(read_text(_LIST))
    except OSError:
        # No debugfs, or lockdown.
        return frozenset()


def parse_breakpoints(text: str) -> frozenset[int]:
    """Parse the list: one kprobe per line, its flags in brackets, none for a plain breakpoint."""
    return frozenset(int(line.split()[0], 16) for line in text.splitlines() if "[" not in line)
