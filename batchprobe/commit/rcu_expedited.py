# SPDX-License-Identifier: Apache-2.0
"""/sys/kernel/rcu_expedited: set while probes are removed, shared by all batchprobe processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from batchprobe.sys.files import RUN_FOLDER, open_shared, read_bytes, read_text
from batchprobe.sys.process import Owner

__all__ = ["RcuExpedited", "why_not_expedited"]

_KERNEL = "/sys/kernel"
_RECORD = "rcu_expedited"
_MOST_STATE = 1 << 20  # bytes


def why_not_expedited() -> str | None:
    """Why BarrierMode.AUTO must not set rcu_expedited on this machine; None if it may."""
    if _read(f"{_KERNEL}/rcu_normal") not in ("", "0"):
        return "rcu_normal is set, which overrides rcu_expedited"
    if _read(f"{_KERNEL}/realtime") == "1":
        return "this is a real-time kernel"
    cpus = _read("/sys/devices/system/cpu/nohz_full")
    if cpus not in ("", "(null)"):
        return f"CPUs {cpus} are nohz_full"
    if not os.access(f"{_KERNEL}/rcu_expedited", os.W_OK):
        return "rcu_expedited is not writable"
    return None


class RcuExpedited:
    """A share in rcu_expedited (kernel/ksysfs.c, Linux 3.8; rcu_normal overrides it, Linux 4.5).

    The first holder records the value it found and writes 1; the last one writes the recorded value
    back. The record, with every holder, is in a file under a lock. A holder is in that file from
    *before* rcu_expedited is set until *after* it is restored, so whatever a killed process left
    can be undone by the guardian, the next start or `batchprobe cleanup`.
    """

    def __init__(
        self,
        state: str | PathLike[str] = RUN_FOLDER,
        file: str | PathLike[str] = f"{_KERNEL}/rcu_expedited",
    ) -> None:
        self._folder = state
        self._file = file

    def take(self, owner: Owner) -> None:
        """Add a holder and set rcu_expedited. Raises OSError, and then adds none."""
        with self._locked() as holders:
            holders.append(owner)

    def give_back(self, owner: Owner) -> None:
        """Remove a holder; without a holder left, restore rcu_expedited.

        Raises OSError if it cannot be restored; `owner` then stays a holder.
        """
        with self._locked() as holders:
            if owner in holders:
                holders.remove(owner)

    def restore_for_dead(self) -> bool:
        """Remove dead holders and, without a live one, restore rcu_expedited.

        Returns whether there was a dead holder. Raises OSError if it cannot be restored.
        """
        try:
            _, holders = _parse(read_bytes(f"{self._folder}/{_RECORD}"))
        except FileNotFoundError:
            return False
        if not any(holder.is_dead for holder in holders):
            return False
        with self._locked():
            return True

    @contextmanager
    def _locked(self) -> Iterator[list[Owner]]:
        """Yield the live holders under the lock, then apply what the block did to that list."""
        fd = open_shared(_RECORD, self._folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            original, before = _parse(os.pread(fd, _MOST_STATE, 0))
            alive = [holder for holder in before if not holder.is_dead]
            holders = list(alive)
            yield holders
            # Killed between any two of these steps, the process is still in the record.
            if alive and holders:
                _save(fd, original, holders)
            elif holders:
                # The first holder, unless dead ones left it set: then `original` is still valid.
                if not before:
                    original = read_text(self._file).strip()
                _save(fd, original, holders)
                try:
                    _write(self._file, "1")
                except OSError:
                    _save(fd, original, before)
                    raise
            elif before:
                # Keep a value that somebody else wrote meanwhile.
                if read_text(self._file).strip() == "1":
                    _write(self._file, original or "0")
                _save(fd, None, [])
        finally:
            os.close(fd)


def _parse(text: bytes) -> tuple[str | None, list[Owner]]:
    """The recorded value and the holders. An unreadable record is not ours: it counts as empty."""
    try:
        original, *lines = text.decode().rstrip().split("\n")
        return original or None, [Owner(*map(int, line.split())) for line in lines]
    except (ValueError, TypeError):
        return None, []


def _save(fd: int, original: str | None, holders: list[Owner]) -> None:
    if not holders:
        os.ftruncate(fd, 0)
        return
    numbers = [f"{one.pid} {one.start} {one.namespace}" for one in holders]
    lines = [original or "", *numbers, ""]
    text = "\n".join(lines).encode()
    # One write, padded over a longer old record, so that a kill cannot leave half a record.
    os.pwrite(fd, text.ljust(os.fstat(fd).st_size), 0)


def _read(path: str) -> str:
    """A setting; empty where the kernel lacks the feature."""
    try:
        return read_text(path).strip()
    except OSError:
        return ""


def _write(path: str | PathLike[str], text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())
