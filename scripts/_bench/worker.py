# SPDX-License-Identifier: Apache-2.0
"""A process that calls getppid(2) on one CPU and prints how long the calls took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import repeat


class Worker:
    """One of them, pinned to a CPU."""

    def __init__(self, cpu: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "_bench.worker", str(cpu)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def begin(self, calls: int) -> None:
        """Let it begin."""
        assert self._process.stdin
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()

    def end(self) -> float:
        """Seconds that its calls took."""
        assert self._process.stdout
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def main() -> None:
    """Serve until the input ends."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    call = os.getppid
    for line in sys.stdin:
        times = repeat(None, int(line))
        began = time.perf_counter()
        for _ in times:
            call()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
