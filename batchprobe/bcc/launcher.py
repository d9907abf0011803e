#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a bcc tool in this process, its kprobes through the commit.

    PYTHON launcher.py ABI PLACEMENT BARRIER loud|quiet SCOPE TOOL [ARGUMENTS...]

`batchprobe run` executes this with the tool's own Python, which need not know batchprobe. SCOPE is
a word of `batchprobe.filters.word`, empty if everybody's hits count.
"""

from __future__ import annotations

import os
import runpy
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["main"]

_OLDEST = (3, 11)
_SITE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main(arguments: list[str]) -> None:
    """Become the tool. Does not return before it ends."""
    abi, placement, barrier, loudness, scope, tool, *rest = arguments
    if sys.version_info < _OLDEST:
        sys.exit(f"batchprobe: error: {sys.executable} is older than Python 3.11")
    # Under PYTHONSAFEPATH or -P, Python puts no folder of a script in front.
    if not sys.flags.safe_path:
        del sys.path[0]
    # Only for this import: the package finds its own modules later.
    sys.path.insert(0, _SITE)
    from batchprobe.bcc.tool import prepare  # noqa: PLC0415

    prepare(abi, placement, barrier, quiet=loudness == "quiet", scope=scope, tool=tool)
    # What the tool would see if it was executed.
    sys.argv[:] = [tool, *rest]
    del sys.path[0]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(tool)))
    sys.excepthook = _report
    runpy.run_path(tool, run_name="__main__")


def _report(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an exception of the tool without our frames."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename in {
        __file__,
        runpy.__file__,
        "<frozen runpy>",
    }:
        traceback = traceback.tb_next
    from batchprobe.bcc.moments import unwatched  # noqa: PLC0415  (found by `main`)

    # The tool ends: kprobes that wait would be armed only to be removed.
    stream, sys.stderr = sys.stderr, unwatched(sys.stderr)
    # The traceback of the exception is what is printed, not the argument.
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)
    sys.stderr = stream


if __name__ == "__main__":
    main(sys.argv[1:])
