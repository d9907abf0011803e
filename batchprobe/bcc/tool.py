# SPDX-License-Identifier: Apache-2.0
"""What `batchprobe run` sets up in the process of a tool."""

from __future__ import annotations

import gc
import os
import sys

from batchprobe.bcc.batch import Summary
from batchprobe.bcc.installed import Installed, say
from batchprobe.bcc.session import ToolSession
from batchprobe.errors import ExitStatus, UnsupportedError
from batchprobe.sys.process import set_name

__all__ = ["prepare"]


def prepare(abi: str, placement: str, barrier: str, *, quiet: bool, tool: str) -> None:
    """Batch the kprobes of the tool that is about to run here, and name the process after it.

    Ends the process where bcc is missing, or the options do not go together.
    """

    def make_session() -> ToolSession:
        return ToolSession(abi=abi, placement=placement, barrier=barrier)

    try:
        # Refuses options that do not go together now, and not in the middle of an attach.
        make_session()
        installed = Installed(make_session, lambda summary: _end(installed, summary, quiet=quiet))
    except ValueError as error:
        print(f"batchprobe: error: {error}", file=sys.stderr)
        sys.exit(ExitStatus.USAGE)
    except UnsupportedError as error:
        print(f"batchprobe: error: {sys.executable}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    set_name(os.path.basename(tool))


def _end(installed: Installed, summary: Summary, *, quiet: bool) -> None:
    # A tool that only printed its help loaded no program.
    if not quiet and installed.library.has_loaded:
        say(str(summary))
    # Or the interpreter collects garbage once more before the process ends.
    gc.freeze()
