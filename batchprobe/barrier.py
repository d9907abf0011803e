"""The one wait after which no handler runs any more, and the knob that makes waits short."""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import json
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from batchprobe import syscalls
from batchprobe.errors import KernelError
from batchprobe.owner import Owner

__all__ = ["Barrier", "BarrierMode", "ExpeditedKnob", "why_not_expedited"]

_KERNEL = Path("/sys/kernel")
_STATE = Path("/run/batchprobe")


class BarrierMode(enum.Enum):
    """How grace periods are waited for.

    Expedited ones interrupt every busy CPU (Documentation/RCU) and take well under a millisecond
    instead of some 20: `AUTO` uses them except where that would hurt or not help.
    """

    AUTO = "auto"
    EXPEDITED = "expedited"
    NORMAL = "normal"


def why_not_expedited() -> str | None:
    """Why `AUTO` leaves RCU alone on this machine, None where it expedites."""
    if _read(_KERNEL / "rcu_normal") not in ("", "0"):
        return "rcu_normal is set, which overrides rcu_expedited"
    if _read(_KERNEL / "realtime") == "1":
        return "this is a real-time kernel"
    cpus = _read(Path("/sys/devices/system/cpu/nohz_full"))
    if cpus not in ("", "(null)"):
        return f"CPUs {cpus} are nohz_full"
    if not os.access(_KERNEL / "rcu_expedited", os.W_OK):
        return "rcu_expedited cannot be written"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        # These files are absent where the kernel lacks the feature.
        return ""


class ExpeditedKnob:
    """/sys/kernel/rcu_expedited, shared by all batchprobe processes.

    The first who needs it notes what was there and sets it, the last puts that back. Who holds it
    is written to a file under a lock *before* the knob is touched, so whoever comes next, be it the
    guardian, another start or `batchprobe cleanup`, can undo what a killed process left.
    """

    def __init__(self, state: Path = _STATE, knob: Path = _KERNEL / "rcu_expedited") -> None:
        self._state = state
        self._knob = knob

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[Owner]]:
        """The holders still alive, under the lock; the body's changes are kept."""
        self._state.mkdir(mode=0o755, exist_ok=True)
        fd = os.open(self._state / "rcu_expedited", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            text = os.pread(fd, 1 << 20, 0)
            state = json.loads(text) if text else {"original": None, "holders": []}
            before = [Owner(*holder) for holder in state["holders"]]
            alive = [holder for holder in before if not holder.is_dead]
            holders = list(alive)
            yield holders
            original = state["original"]
            if holders and not before:
                original = self._knob.read_text().strip()
            self._save(fd, original, holders)
            if holders and not alive:
                self._knob.write_text("1")
            elif before and not holders:
                # Somebody may have set another value meanwhile: that one stays.
                if self._knob.read_text().strip() == "1":
                    self._knob.write_text(original)
                self._save(fd, None, [])
        finally:
            os.close(fd)

    @staticmethod
    def _save(fd: int, original: str | None, holders: list[Owner]) -> None:
        state = {"original": original, "holders": [astuple(holder) for holder in holders]}
        text = json.dumps(state).encode()
        # Padded, in one write: a kill cannot leave half a state.
        os.pwrite(fd, text.ljust(os.fstat(fd).st_size), 0)

    def take(self, owner: Owner) -> None:
        """Note `owner` as a holder, and expedite. Raises OSError where that cannot be done."""
        with self._locked() as holders:
            holders.append(owner)

    def give_back(self, owner: Owner) -> None:
        """Forget `owner`; the last holder restores what was there."""
        with self._locked() as holders:
            if owner in holders:
                holders.remove(owner)

    def restore_for_dead(self) -> bool:
        """Restore the knob if only dead processes hold it; whether there were any."""
        try:
            state = json.loads((self._state / "rcu_expedited").read_text())
        except (FileNotFoundError, ValueError):
            return False
        if not any(Owner(*holder).is_dead for holder in state["holders"]):
            return False
        with self._locked():
            return True


class Barrier:
    """Grace periods, as this session may have them."""

    def __init__(self, mode: BarrierMode, owner: Owner) -> None:
        self._knob = ExpeditedKnob()
        self._owner = owner
        self._lock = threading.Lock()
        self._depth = 0
        reason = why_not_expedited() if mode is BarrierMode.AUTO else None
        self.note = reason or ""
        self.expedites = mode is not BarrierMode.NORMAL and reason is None

    @contextlib.contextmanager
    def short_waits(self) -> Iterator[None]:
        """While in this block, grace periods are expedited, if they may be."""
        if not self.expedites:
            yield
            return
        with self._lock:
            if self._depth == 0:
                try:
                    self._knob.take(self._owner)
                except OSError as error:
                    # Slow is better than not at all.
                    self.note = f"grace periods are not expedited: {error}"
                    self.expedites = False
            self._depth += self.expedites
            taken = self.expedites
        try:
            yield
        finally:
            with self._lock:
                self._depth -= taken
                if taken and self._depth == 0:
                    self._knob.give_back(self._owner)

    def wait(self) -> int:
        """Wait until every handler that was running has finished; the number of waits it took.

        Raises KernelError where the kernel offers no such wait.
        """
        try:
            syscalls.membarrier_global()
        except KernelError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            wait_through_map()
        return 1


def wait_through_map() -> None:
    """Wait for a grace period where membarrier(2) has none (nohz_full, no CONFIG_MEMBARRIER).

    Replacing a map in an array of maps waits for the programs that may still use the old one:
    maybe_wait_bpf_programs(), kernel/bpf/syscall.c, Linux 4.20.
    """
    fds: list[int] = []

    def create(kind: int, inner_fd: int = 0) -> int:
        fds.append(
            syscalls.map_create(
                "barrier", kind, key_size=4, value_size=4, entries=1, inner_fd=inner_fd
            )
        )
        return fds[-1]

    try:
        inner = create(syscalls.BPF_MAP_TYPE_ARRAY)
        outer = create(syscalls.BPF_MAP_TYPE_ARRAY_OF_MAPS, inner)
        syscalls.map_update(outer, struct.pack("=I", 0), struct.pack("=I", inner))
    finally:
        for fd in fds:
            os.close(fd)
