# SPDX-License-Identifier: Apache-2.0
"""Run as a script: a tree of processes that makes a known number of getsid(2) calls.

Short-lived children, deep ones, threads, execve(2) by the leader and by another thread, and a
daemon that nobody is the parent of.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

__all__ = ["CALLS", "SCRIPT"]

SCRIPT = __file__
_SHORT = 50
CALLS = 10 + _SHORT + 5 + 3 * 7 + 13 + 17 + 11 + 3
"""getsid(2) calls of a whole run."""


def _call(count: int) -> None:
    for _ in range(count):
        os.getsid(0)


def _in_child(run: Callable[[], None]) -> None:
    if not (pid := os.fork()):
        run()
        os._exit(0)
    os.waitpid(pid, 0)


def _exec(count: int) -> None:
    code = f"import os\nfor _ in range({count}): os.getsid(0)"
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])  # noqa: S606


def _exec_in_thread(count: int) -> None:
    threading.Thread(target=_exec, args=(count,)).start()
    threading.Event().wait()


def _daemon() -> None:
    reader, writer = os.pipe()

    def detach() -> None:
        os.setsid()
        if os.fork() == 0:
            _call(11)
            os._exit(0)

    _in_child(detach)
    os.close(writer)
    # Ends when the daemon has exited, which closes its copy.
    os.read(reader, 1)


def main() -> None:
    _call(10)
    for _ in range(_SHORT):
        _in_child(lambda: _call(1))
    _in_child(lambda: _in_child(lambda: _in_child(lambda: _call(5))))
    threads = [threading.Thread(target=_call, args=(7,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _in_child(lambda: _exec(13))
    _in_child(lambda: _exec_in_thread(17))
    _daemon()
    _call(3)


if __name__ == "__main__":
    if sys.argv[1:] == ["wait"]:
        sys.stdin.readline()
    main()
