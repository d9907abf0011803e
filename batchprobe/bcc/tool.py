# SPDX-License-Identifier: Apache-2.0
"""What `batchprobe run` sets up in the process of a tool."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from batchprobe._util.counted import counted
from batchprobe.bcc.batch import Summary
from batchprobe.bcc.installed import Installed, say
from batchprobe.bcc.session import ToolSession
from batchprobe.errors import ExitStatus, UnsupportedError
from batchprobe.sys.process import set_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.filters.scope import ScopeFilter

__all__ = ["prepare"]


def prepare(abi: str, placement: str, barrier: str, *, quiet: bool, scope: str, tool: str) -> None:
    """Batch the kprobes of the tool that is about to run here, and name the process after it.
    `scope` says whose hits it sees, as `batchprobe.filters.word` has it; empty if everybody's.

    Ends the process where bcc is missing, or the options do not go together.
    """
    filters: Sequence[ScopeFilter] = ()

    def make_session() -> ToolSession:
        return ToolSession(filters=filters, abi=abi, placement=placement, barrier=barrier)

    try:
        if scope:
            from batchprobe.filters.word import from_word  # noqa: PLC0415  (most runs have none)

            filters = from_word(scope)
        # Refuses options that do not go together now, and not in the middle of an attach.
        make_session()
        installed = Installed(
            make_session,
            lambda summary: _end(installed, summary, filters, quiet=quiet),
            is_filtered=bool(filters),
        )
    except ValueError as error:
        print(f"batchprobe: error: {error}", file=sys.stderr)
        sys.exit(ExitStatus.USAGE)
    except UnsupportedError as error:
        print(f"batchprobe: error: {sys.executable}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    set_name(os.path.basename(tool))


def _end(
    installed: Installed, summary: Summary, filters: Sequence[ScopeFilter], *, quiet: bool
) -> None:
    # What falsifies the tool's output is no matter of taste.
    if lost := sum(one.lost for one in filters):
        say(f"{counted(lost, 'thread')} could not be followed: their hits are missing")
    if quiet and summary.unfiltered:
        say(summary.unfiltered_text())
    # A tool that only printed its help loaded no program.
    if not quiet and installed.library.has_loaded:
        say(str(summary))
    # Or the interpreter collects garbage once more before the process ends.
    gc.freeze()
