# SPDX-License-Identifier: Apache-2.0
"""Entries of function lists, for the tests."""

from __future__ import annotations

from hypothesis import strategies as st

from batchprobe.funclist.parse import parse_line
from batchprobe.funclist.spec import ProbeSpec, Source

HERE = Source("funcs.txt", 7)

# Text assembled from parts of entries exercises more of the grammar than arbitrary text.
PIECES = st.lists(
    st.sampled_from(
        [*"!:/+%*[]?-^()$.\\#9{}é \n\r\0", "vfs_read", "ext4", "syscall", "0x1c", "return"]
    ),
    max_size=12,
).map("".join)


def parse(text: str) -> ProbeSpec:
    """Parse an entry that is neither blank nor malformed."""
    [found] = parse_line(text, HERE)
    return found
