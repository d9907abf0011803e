# SPDX-License-Identifier: Apache-2.0
"""What an exit status of pytest, or of the guest around it, means."""

from __future__ import annotations

_NO_TESTS = 5


def failure(status: int, *, is_selected: bool) -> str | None:
    """Why the run failed, None if it passed.

    pytest's status 5, no test ran, passes only where the caller selected tests: then a kernel
    may have none of them.
    """
    if status == 0 or (status == _NO_TESTS and is_selected):
        return None
    if status < 0:
        return f"failed by signal {-status}"
    return f"failed with status {status}"
