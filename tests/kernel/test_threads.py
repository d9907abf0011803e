"""Any thread may do anything at any moment, with forks, signals and Ctrl-C besides."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.figures import tell
from helpers.machine import ABIS, HANG_SECONDS
from helpers.traced import traced
from helpers.workers import CALLS, Worker

THREADS = 16


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, id="short"), pytest.param(60, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("abi", ABIS)
def test_sixteen_threads(abi: str, seconds: int, workers: list[Worker]) -> None:
    seed = int(os.environ.get("BATCHPROBE_SEED") or random.randrange(1 << 30))  # noqa: S311
    chance = random.Random(seed)  # noqa: S311
    program = (sys.executable, "-m", "helpers.churn", abi, str(THREADS), str(seconds), str(seed))
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    with traced("__x64_sys_membarrier", anybody=True) as calls:
        for worker in workers:
            worker.begin(CALLS)
        before = calls().total()
        with subprocess.Popen(
            program,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as process:
            try:
                if process.stdout is None:
                    raise AssertionError("it is a pipe")
                assert process.stdout.readline() == "runs\n"
                time.sleep(0.5)
                sent = 0
                while process.poll() is None and sent < seconds * 20:
                    time.sleep(chance.random() * 0.1)
                    process.send_signal(chance.choice((signal.SIGINT, signal.SIGUSR1)))
                    sent += 1
                out, err = process.communicate(timeout=HANG_SECONDS + seconds)
            finally:
                process.kill()
                for worker in workers:
                    worker.end()
        assert process.returncode == 0, f"seed {seed}: {err}"
        done = json.loads(out)
        waited = calls().total() - before
    tell(f"{abi}, {THREADS} threads, {seconds} s: {done}")
    assert not done["left"], f"seed {seed}"
    assert not done["moved"], f"seed {seed}"
    # The kernel saw the barriers that the reports claim: fewer than there were commits.
    assert waited == done["barriers"] < done["commit"]
    assert done["probes"] >= done["finals"] > 0
    assert done["hits"] > 0
    assert (
        min(done.get(what, 0) for what in ("attach", "fork", "interrupt", "detach in a handler"))
        > 0
    )
