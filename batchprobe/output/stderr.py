# SPDX-License-Identifier: Apache-2.0
"""Messages for the user on stderr. Results go to stdout, through a sink."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from batchprobe.commit.queue import RemovalFailure
from batchprobe.functions.targets import Skipped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["drop_unwritten", "say", "say_not_removed", "say_skipped"]

_MAX_SKIPS = 20


def say(line: str) -> None:
    """Write one line to stderr."""
    try:
        os.write(2, f"batchprobe: {line}\n".encode(errors="replace"))
    except OSError:
        # Nobody reads it; the exit status still speaks.
        return


def drop_unwritten(stream: TextIO) -> None:
    """Drop buffered output that cannot be written. The interpreter would try again at its exit, and
    end with status 120.
    """
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def say_skipped(skipped: Sequence[Skipped], most: int | None = _MAX_SKIPS) -> None:
    """Each skipped entry with its line and the reason; beyond `most`, only their number."""
    for skip in skipped[:most]:
        say(f"skipped {skip}")
    if most is not None and len(skipped) > most:
        reasons = Counter(skip.reason for skip in skipped[most:])
        what = ", ".join(f"{count} {reason.value}" for reason, count in reasons.items())
        say(f"… and {len(skipped) - most} more skipped ({what}): `batchprobe functions` lists all")


def say_not_removed(failures: Sequence[RemovalFailure]) -> None:
    """What could not be removed, and what happens to it."""
    for failure in failures:
        say(f"error: not removed: {failure.what}")
    if failures:
        say(
            "it no longer counts anything; a background process retries the removal for a minute, "
            "after that `batchprobe cleanup` does"
        )
