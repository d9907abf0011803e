# SPDX-License-Identifier: Apache-2.0
"""Wraps the package's calls into the kernel, to make one of them fail."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchprobe.commit.rcu_expedited import RcuExpedited
from batchprobe.errors import KernelError
from batchprobe.kernel.tracefs import Tracefs
from batchprobe.sys import libc

__all__ = ["Calls", "failing_calls"]


class Calls:
    """Counts calls. Call number `fail_at` is not made, and fails with `errno`."""

    def __init__(self) -> None:
        self.made = 0
        self.fail_at = 0
        self.errno = errno.ENOMEM
        self.failed = ""

    def begin(self, fail_at: int, number: int = errno.ENOMEM) -> None:
        """Count from 0 again. With `fail_at` 0 or below, no call fails."""
        self.made, self.fail_at, self.errno, self.failed = 0, fail_at, number, ""

    def wrap(
        self, name: str, call: Callable[..., Any], *, kernel_error: bool
    ) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.made += 1
            if self.made != self.fail_at:
                return call(*args, **kwargs)
            self.failed = next((arg for arg in args if isinstance(arg, str)), name)
            if kernel_error:
                raise KernelError(self.failed, self.errno)
            raise OSError(self.errno, os.strerror(self.errno), self.failed)

        return wrapped


@contextlib.contextmanager
def failing_calls() -> Iterator[Calls]:
    """Inside this block, the package's calls go through the wrappers."""
    calls = Calls()
    patch = pytest.MonkeyPatch()
    with patch.context():
        for owner, name, kernel_error in (
            (libc, "syscall", True),
            (libc, "ioctl", True),
            (libc, "mapped", True),
            (Tracefs, "_write", True),
            (Tracefs, "event_id", True),
            (Tracefs, "hits", True),
            (RcuExpedited, "take", False),
            (RcuExpedited, "give_back", False),
            (os, "sched_setaffinity", False),
        ):
            wrapper = calls.wrap(name, getattr(owner, name), kernel_error=kernel_error)
            patch.setattr(owner, name, wrapper)
        yield calls
    patch.undo()
