# SPDX-License-Identifier: Apache-2.0
"""Run a host tool quietly: its output is shown only when it fails."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from _vm.errors import VmError

_SHOWN_LINES = 15


def tool(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Standard output of `argv`; VmError with the end of its output if it fails."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise VmError(f"{argv[0]} is missing: run scripts/bootstrap vm as root") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-_SHOWN_LINES:]
        raise VmError("\n  ".join([f"{argv[0]} failed with status {done.returncode}:", *lines]))
    return done.stdout


def progress(text: str) -> None:
    """Print a line of progress."""
    print(f"vm: {text}", file=sys.stderr, flush=True)
