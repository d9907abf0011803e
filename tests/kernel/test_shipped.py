# SPDX-License-Identifier: Apache-2.0
"""What is shipped is what bcc makes of bpf/ on this kernel, and needs no compiler."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import _bytecode
import pytest
from helpers.command import run
from helpers.machine import BCC_COMPILES

from batchprobe import arch
from batchprobe.programs.shipped import COMPILE, FOLDER

pytestmark = pytest.mark.skipif(not BCC_COMPILES, reason="no bcc here, or none that compiles")


@pytest.mark.skipif(
    platform.freedesktop_os_release().get("VERSION_ID") != "12",
    reason="another clang than Debian 12's emits other code",
)
def test_bcc_compiles_what_is_shipped() -> None:
    adapter = arch.current()
    assert _bytecode.content(adapter) == Path(FOLDER, f"{adapter.bytecode}.txt").read_text()


def test_compiled_here(tmp_path: Path) -> None:
    """As on a machine that no bytecode is shipped for."""
    env = {**os.environ, COMPILE: "1", "XDG_CACHE_HOME": str(tmp_path)}
    kept = []
    for _ in range(2):
        done = run("attach", "-", "-d", "0", "--json", stdin="syscall:getsid\n", env=env)
        assert done.status == 0, done
        assert done.summary["attached"] == 1
        kept.append([(f, f.stat().st_mtime_ns) for f in tmp_path.glob("batchprobe/programs/*")])
    # Only the first time: the cache has it then.
    assert len(kept[0]) == 1
    assert kept[0] == kept[1]
