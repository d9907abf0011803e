# SPDX-License-Identifier: Apache-2.0
"""Figures that tests measure, for the documents. No test passes or fails by them."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["lines", "record", "report_figure"]

lines: list[str] = []
# Set by scripts/test arch: a folder for one file per kernel, which becomes a row of the page.
RECORDS = "BATCHPROBE_RECORDS"


def report_figure(line: str) -> None:
    """Print a line at the end of the run."""
    lines.append(line)


def record(name: str, facts: object) -> None:
    """Write facts about this kernel under a name, if RECORDS is set."""
    folder = os.environ.get(RECORDS)
    if not folder:
        return
    kernel = os.uname()
    file = Path(folder, f"{kernel.machine}-{kernel.release}.json")
    known = json.loads(file.read_text()) if file.exists() else {}
    known |= {"machine": kernel.machine, "kernel": kernel.release, name: facts}
    file.write_text(json.dumps(known, indent=1) + "\n")
