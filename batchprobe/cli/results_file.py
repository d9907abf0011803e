# SPDX-License-Identifier: Apache-2.0
"""The file that -o names, or standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from batchprobe.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["refuse_json", "results_file"]


def refuse_json(path: str | None, endings: Sequence[str], *, as_json: bool) -> None:
    """Raise UsageError where --json was given beside a file whose name asks for another form."""
    if as_json and path is not None and path.endswith(tuple(endings)):
        raise UsageError(f"--json -o {path}: which form? Leave out --json, or name another file")


@contextmanager
def results_file(path: str | None) -> Iterator[TextIO]:
    """Where the results go. Raises UsageError if that cannot be written."""
    if path is None:
        if sys.stdout is None:
            raise UsageError("standard output is closed: write the results to a file with -o FILE")
        if isinstance(sys.stdout, TextIOWrapper):
            # Names of tasks and texts may have characters that this locale's encoding lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        yield sys.stdout
        return
    try:
        stream = open(path, "w", encoding="utf-8")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield stream
    finally:
        # Every line was flushed: an error now was reported then.
        with suppress(OSError):
            stream.close()
