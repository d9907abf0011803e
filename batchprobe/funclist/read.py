"""Function lists, from files and standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchprobe.errors import BatchprobeError
from batchprobe.funclist.spec import parse_list
from batchprobe.sys.files import read_bytes

if TYPE_CHECKING:
    from batchprobe.funclist.spec import ProbeSpec

__all__ = ["ListError", "read_lists"]


class ListError(BatchprobeError):
    """A list cannot be read, or has nothing in it."""

    exit_status = 2


def read_lists(files: Sequence[str]) -> list[ProbeSpec]:
    """The entries of these files, `-` for standard input.

    Raises ListError for a file that cannot be read, or if there is nothing to attach in any,
    SpecError for a malformed entry.
    """
    specs: list[ProbeSpec] = []
    for file in files:
        try:
            data = sys.stdin.buffer.read() if file == "-" else read_bytes(file)
        except OSError as error:
            raise ListError(f"cannot read {file}: {error.strerror or error}") from None
        specs += parse_list(data, "<stdin>" if file == "-" else file)
    if not any(not spec.exclude for spec in specs):
        names = ", ".join(files)
        raise ListError(f"{names}: no function in it; one entry a line, see the README")
    return specs
