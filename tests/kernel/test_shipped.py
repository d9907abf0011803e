# SPDX-License-Identifier: Apache-2.0
"""The shipped bytecode equals what bcc makes of bpf/; without bytecode, bcc compiles."""

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

pytestmark = pytest.mark.skipif(not BCC_COMPILES, reason="no working bcc here")


@pytest.mark.skipif(
    platform.freedesktop_os_release().get("VERSION_ID") != "12",
    reason="only Debian 12's clang emits the same code",
)
def test_the_shipped_bytecode_is_what_bcc_compiles() -> None:
    adapter = arch.current()
    assert _bytecode.content(adapter) == Path(FOLDER, f"{adapter.bytecode}.txt").read_text()


def test_programs_are_compiled_once_and_cached(tmp_path: Path) -> None:
    """As on a machine without shipped bytecode."""
    env = {**os.environ, COMPILE: "1", "XDG_CACHE_HOME": str(tmp_path)}
    cached = []
    for _ in range(2):
        done = run("attach", "-", "-d", "0", "--json", stdin="syscall:getsid\n", env=env)
        assert done.status == 0, done
        assert done.summary["attached"] == 1
        cached.append([(f, f.stat().st_mtime_ns) for f in tmp_path.glob("batchprobe/programs/*")])
    # The second run used the cache of the first.
    assert len(cached[0]) == 1
    assert cached[0] == cached[1]
