# SPDX-License-Identifier: Apache-2.0
"""Messages for the user on stderr. Results go to stdout, through a sink."""

from __future__ import annotations

import os
from collections.abc import Sequence

from batchprobe._util.counted import counted
from batchprobe.commit.queue import RemovalFailure
from batchprobe.functions.targets import Reason, Skipped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from batchprobe.probe import Probe

__all__ = ["drop_unwritten", "say", "say_not_removed", "say_pending", "say_skipped"]

# So few skips are shown one by one: the table should stay on the screen.
_FEW_SKIPS = 4
_EXAMPLES = 2
# Only an attach finds them.
_NOT_IN_PREVIEW = frozenset({Reason.NOT_AN_INSTRUCTION, Reason.REFUSED, Reason.UNSUPPORTED})


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


def say_skipped(skipped: Sequence[Skipped], most: int | None = _FEW_SKIPS) -> None:
    """Each skipped entry with its line and the reason; if there are more than `most`, their number
    by reason, with examples, and where the rest is.
    """
    if most is None or len(skipped) <= most:
        for skip in skipped:
            say(f"skipped {skip}")
        return
    by_reason: dict[Reason, list[Skipped]] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, []).append(skip)
    counts = ", ".join(f"{len(skips)} {reason.value}" for reason, skips in by_reason.items())
    say(f"skipped {len(skipped)}: {counts}; for example")
    shown = 0
    for skips in by_reason.values():
        # With many reasons, one of each is enough to see.
        for skip in skips[: _EXAMPLES if len(by_reason) <= _EXAMPLES else 1]:
            say(f"  {skip}")
            shown += 1
    if shown < len(skipped):
        where = "--json lists all"
        if not by_reason.keys() & _NOT_IN_PREVIEW:
            where = f"`batchprobe functions LIST` or {where}"
        say(f"  … {len(skipped) - shown} more: {where}")


def say_pending(probes: Sequence[Probe]) -> None:
    """Which probes count only when their module is loaded: said before anybody waits for hits."""
    modules = ", ".join(dict.fromkeys(probe.target.module for probe in probes))
    say(f"{counted(len(probes), 'probe')} will count when the module is loaded: {modules}")


def say_not_removed(failures: Sequence[RemovalFailure]) -> None:
    """What could not be removed, and what happens to it."""
    for failure in failures:
        say(f"error: not removed: {failure.what}")
    if failures:
        say(
            "it no longer counts anything; a background process retries the removal for a minute, "
            "after that `batchprobe cleanup` does"
        )
