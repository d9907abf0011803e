# SPDX-License-Identifier: Apache-2.0
"""What tests measured or tried: figures for the documents, not verdicts."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["lines", "record", "tell"]

lines: list[str] = []
# Where scripts/test arch wants them: a file a kernel, which becomes a row of a page.
RECORDS = "BATCHPROBE_RECORDS"


def tell(line: str) -> None:
    """Show a line at the end of the run."""
    lines.append(line)


def record(name: str, facts: object) -> None:
    """Keep facts of this kernel under a name, if somebody collects them."""
    folder = os.environ.get(RECORDS)
    if not folder:
        return
    kernel = os.uname()
    file = Path(folder, f"{kernel.machine}-{kernel.release}.json")
    known = json.loads(file.read_text()) if file.exists() else {}
    known |= {"machine": kernel.machine, "kernel": kernel.release, name: facts}
    file.write_text(json.dumps(known, indent=1) + "\n")
