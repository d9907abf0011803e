# SPDX-License-Identifier: Apache-2.0
"""Any thread may attach, detach and commit at any moment, among forks, signals and Ctrl-C."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.churn import WANTED
from helpers.figures import report_figure
from helpers.machine import ABIS, HANG_SECONDS, PREFIX
from helpers.traced import traced
from helpers.workers import CALLS, Worker

pytestmark = pytest.mark.stress

THREADS = 16


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, id="short"), pytest.param(60, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("abi", ABIS)
def test_sixteen_threads(abi: str, seconds: int, workers: list[Worker]) -> None:
    seed = int(os.environ.get("BATCHPROBE_SEED") or random.randrange(1 << 30))
    program = (sys.executable, "-m", "helpers.churn", abi, str(THREADS), str(seconds), str(seed))
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    with traced(f"{PREFIX}membarrier", any_task=True) as calls:
        workers[0].begin(CALLS)
        before = calls().total()
        try:
            ended = subprocess.run(
                program,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                timeout=HANG_SECONDS + 3 * seconds,
                check=False,
            )
        finally:
            workers[0].end()
        waited = calls().total() - before
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr}"
    done = json.loads(ended.stdout)
    report_figure(f"{abi}, {THREADS} threads, {seconds} s: {done}")
    assert not done["failed"], f"seed {seed}"
    assert not done["moved"], f"seed {seed}"
    # The kernel saw as many barriers as the reports claim, and fewer than commits.
    assert waited == done["barriers"] < done["commit"]
    assert done["probes"] >= done["finals"] > 0
    assert done["hits"] > 0
    assert min(done.get(what, 0) for what in WANTED) > 0
