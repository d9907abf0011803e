# SPDX-License-Identifier: Apache-2.0
"""What a plain `attach` imports: nothing that is slow (docs/performance.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import batchprobe

SLOW = {
    *("ctypes", "dataclasses", "inspect", "json", "pathlib", "re", "rich", "subprocess", "typer"),
    *("traceback", "typing"),
}
# With what is imported where it is used: by the attach, and after it.
IMPORTED = (
    *("__main__", "cli.run", "cli.args", "cli.attach", "output.text"),
    *("attach.kprobe_multi", "attach.perf_kprobe", "attach.trace_event", "arch.x86_64"),
    *("cleanup.guardian", "cleanup.sweep", "kernel.kprobe_events", "kernel.kprobes_list"),
)


def test_a_start_imports_nothing_slow() -> None:
    lines = [f"import batchprobe.{name}" for name in IMPORTED]
    code = "\n".join(("import sys", *lines, "print(*sys.modules)"))
    # -S: what site-packages has in .pth files is no choice of ours.
    done = subprocess.run(
        (sys.executable, "-S", "-c", code),
        cwd=Path(batchprobe.__file__).parents[1],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not SLOW & set(done.stdout.split())
