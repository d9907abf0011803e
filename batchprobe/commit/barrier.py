# SPDX-License-Identifier: Apache-2.0
"""The barrier: one wait after which no handler of a closed gate runs any more."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from threading import RLock

from batchprobe.commit.rcu_expedited import RcuExpedited, why_not_expedited
from batchprobe.errors import BatchprobeError, KernelError
from batchprobe.sys import bpf, fds, libc
from batchprobe.sys.process import Owner

__all__ = ["Barrier", "BarrierMode", "wait_through_map"]


class BarrierMode(Enum):
    """Whether grace periods are expedited while probes are removed.

    An expedited grace period takes well under a millisecond instead of some 20, and interrupts
    every CPU that is not idle (Documentation/RCU/Design/Expedited-Grace-Periods). AUTO expedites
    unless `why_not_expedited` objects; EXPEDITED always tries; NORMAL never does.
    """

    AUTO = "auto"
    EXPEDITED = "expedited"
    NORMAL = "normal"


class Barrier:
    """Waits for grace periods, and expedites them where `mode` and the machine allow it.

    `guard` is called before rcu_expedited is set, which the kernel does not undo when this process
    is killed.
    """

    def __init__(
        self, mode: BarrierMode, owner: Owner, *, guard: Callable[[], None] = lambda: None
    ) -> None:
        self._rcu_expedited = RcuExpedited()
        self._owner = owner
        self._guard = guard
        self._lock = RLock()
        self._depth = 0
        # We are a holder that no longer needs it: to be given back.
        self._is_restore_due = False
        self._mode = mode
        # Whether to expedite, and why not: found out when first asked, so no start waits for it.
        self._decision: tuple[bool, str] | None = None

    @property
    def expedites(self) -> bool:
        """Whether grace periods are expedited."""
        return self._decide()[0]

    @property
    def note(self) -> str:
        """Why grace periods are not expedited, unless that was asked for; empty if they are."""
        return self._decide()[1]

    def _decide(self) -> tuple[bool, str]:
        with self._lock:
            if self._decision is None:
                reason = why_not_expedited() if self._mode is BarrierMode.AUTO else None
                wanted = self._mode is not BarrierMode.NORMAL and reason is None
                self._decision = wanted, reason or ""
            return self._decision

    @contextmanager
    def expedited_grace_periods(self) -> Iterator[None]:
        """Expedite grace periods within the block, if they may be.

        Never raises: without rcu_expedited or a guard the waits are normal ones, and a setting that
        cannot be restored is left to `restore`.
        """
        with self._lock:
            if self.expedites and self._depth == 0 and not self._is_restore_due:
                try:
                    self._guard()
                    self._rcu_expedited.take(self._owner)
                except (OSError, BatchprobeError) as error:
                    self._decision = False, str(error)
            taken = self.expedites
            self._depth += taken
        try:
            yield
        finally:
            with self._lock:
                self._depth -= taken
                self._is_restore_due = self._is_restore_due or (taken and self._depth == 0)
            self.restore()

    def restore(self) -> KernelError | None:
        """Give rcu_expedited back unless it is still needed; the error if that failed."""
        with self._lock:
            if not self._is_restore_due or self._depth:
                return None
            try:
                self._rcu_expedited.give_back(self._owner)
            except OSError as error:
                return KernelError("restoring rcu_expedited", error.errno or 0)
            self._is_restore_due = False
            return None

    def wait(self) -> int:
        """Wait until every handler that was running has finished; returns the number of waits.

        Raises KernelError if neither membarrier(2) nor a map in a map can wait.
        """
        try:
            libc.membarrier_global()
        except KernelError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            wait_through_map()
        return 1


def wait_through_map() -> None:
    """Wait for a grace period where membarrier(2) offers none: nohz_full, no CONFIG_MEMBARRIER.

    Replacing the inner map of an array of maps waits for all programs that may still use the old
    one (maybe_wait_bpf_programs(), kernel/bpf/syscall.c, Linux 4.20). Raises KernelError.
    """
    made: list[int] = []

    def create(kind: int, inner_fd: int = 0) -> int:
        made.append(
            bpf.map_create("barrier", kind, key_size=4, value_size=4, entries=1, inner_fd=inner_fd)
        )
        return made[-1]

    try:
        inner = create(bpf.BPF_MAP_TYPE_ARRAY)
        outer = create(bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, inner)
        bpf.map_update(outer, struct.pack("=I", 0), struct.pack("=I", inner))
    finally:
        for fd in made:
            fds.close(fd)
