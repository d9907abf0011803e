# SPDX-License-Identifier: Apache-2.0
"""Reads function lists from files and standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from batchprobe.errors import ListError
from batchprobe.funclist.parse import parse_list
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.sys.files import read_bytes

__all__ = ["read_lists"]


def read_lists(files: Sequence[str]) -> list[ProbeSpec]:
    """Parse all `files`, where `-` is standard input.

    Raises ListError if a file cannot be read or no file lists a function to probe, SpecError if an
    entry is malformed.
    """
    specs: list[ProbeSpec] = []
    for file in files:
        try:
            data = sys.stdin.buffer.read() if file == "-" else read_bytes(file)
        except OSError as error:
            raise ListError(f"cannot read {file}: {error.strerror or error}") from error
        specs += parse_list(data, "<stdin>" if file == "-" else file)
    if all(spec.exclude for spec in specs):
        names = ", ".join(files)
        raise ListError(f"{names}: no function in it; write one entry per line, see the README")
    return specs
