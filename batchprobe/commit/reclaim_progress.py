# SPDX-License-Identifier: Apache-2.0
"""Reports the progress of a reclaim to code of the caller's, whose errors must not stop it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ReclaimProgress"]


class ReclaimProgress:
    """Keeps the first error of a reclaim's progress function until the reclaim is over."""

    def __init__(self, progress: Callable[[str, int, int], None]) -> None:
        self._progress = progress
        self._error: BaseException | None = None

    def __call__(self, count: int, total: int) -> None:
        """Report probes removed, and of all; nothing after an error."""
        if self._error is None:
            try:
                self._progress("reclaim", count, total)
            except BaseException as error:
                self._error = error

    def forget_error(self) -> None:
        """Drop the error: another one is raised."""
        self._error = None

    def raise_error(self) -> None:
        """Raise the error, if there was one, and forget it."""
        error, self._error = self._error, None
        if error is not None:
            raise error
