"""The one wait after which no handler runs any more, and the knob that makes waits short."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from os import PathLike
from threading import RLock

from batchprobe.errors import BatchprobeError, KernelError
from batchprobe.sys import bpf
from batchprobe.sys.files import read_bytes, read_text
from batchprobe.sys.process import Owner

__all__ = ["Barrier", "BarrierMode", "ExpeditedKnob", "why_not_expedited"]

_KERNEL = "/sys/kernel"
_STATE = "/run/batchprobe"


class BarrierMode(Enum):
    """How grace periods are waited for.

    Expedited ones interrupt every busy CPU (Documentation/RCU) and take well under a millisecond
    instead of some 20: `AUTO` uses them except where that would hurt or not help.
    """

    AUTO = "auto"
    EXPEDITED = "expedited"
    NORMAL = "normal"


def why_not_expedited() -> str | None:
    """Why `AUTO` leaves RCU alone on this machine, None where it expedites."""
    if _read(f"{_KERNEL}/rcu_normal") not in ("", "0"):
        return "rcu_normal is set, which overrides rcu_expedited"
    if _read(f"{_KERNEL}/realtime") == "1":
        return "this is a real-time kernel"
    cpus = _read("/sys/devices/system/cpu/nohz_full")
    if cpus not in ("", "(null)"):
        return f"CPUs {cpus} are nohz_full"
    if not os.access(f"{_KERNEL}/rcu_expedited", os.W_OK):
        return "rcu_expedited cannot be written"
    return None


def _read(path: str) -> str:
    try:
        return read_text(path).strip()
    except OSError:
        # These files are absent where the kernel lacks the feature.
        return ""


def _write(path: str | PathLike[str], text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


class ExpeditedKnob:
    """/sys/kernel/rcu_expedited, shared by all batchprobe processes.

    The first who needs it notes what was there and sets it, the last puts that back. Who holds it
    is in a file, under a lock, from *before* the knob is set until *after* it is put back, so
    whoever comes next, be it the guardian, another start or `batchprobe cleanup`, can undo what a
    killed process left.
    """

    def __init__(
        self,
        state: str | PathLike[str] = _STATE,
        knob: str | PathLike[str] = f"{_KERNEL}/rcu_expedited",
    ) -> None:
        self._folder = state
        self._file = f"{state}/rcu_expedited"
        self._knob = knob

    @contextmanager
    def _locked(self) -> Iterator[list[Owner]]:
        """The holders still alive, under the lock; the body's changes are kept."""
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o755)
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            original, before = _parse(os.pread(fd, 1 << 20, 0))
            alive = [holder for holder in before if not holder.is_dead]
            holders = list(alive)
            yield holders
            # Who dies between two of these steps is still named in the file, and so found.
            if alive and holders:
                self._save(fd, original, holders)
            elif holders:
                if not before:
                    original = read_text(self._knob).strip()
                self._save(fd, original, holders)
                try:
                    _write(self._knob, "1")
                except OSError:
                    self._save(fd, original, before)
                    raise
            elif before:
                # Somebody may have set another value meanwhile: that one stays.
                if read_text(self._knob).strip() == "1":
                    _write(self._knob, original or "0")
                self._save(fd, None, [])
        finally:
            os.close(fd)

    @staticmethod
    def _save(fd: int, original: str | None, holders: list[Owner]) -> None:
        if not holders:
            os.ftruncate(fd, 0)
            return
        lines = [original or "", *(" ".join(map(str, holder)) for holder in holders), ""]
        text = "\n".join(lines).encode()
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
            _, holders = _parse(read_bytes(self._file))
        except FileNotFoundError:
            return False
        if not any(holder.is_dead for holder in holders):
            return False
        with self._locked():
            return True


def _parse(text: bytes) -> tuple[str | None, list[Owner]]:
    """What the knob read before, and who holds it. We never write half a state: a file that says
    something else was not written by us, and tells nothing."""
    try:
        original, *lines = text.decode().rstrip().split("\n")
        return original or None, [Owner(*map(int, line.split())) for line in lines]
    except (ValueError, TypeError):
        return None, []


class Barrier:
    """Grace periods, as this session may have them.

    `guard` is called before the knob is taken, which no death of this process would give back.
    """

    def __init__(
        self, mode: BarrierMode, owner: Owner, *, guard: Callable[[], None] = lambda: None
    ) -> None:
        self._knob = ExpeditedKnob()
        self._owner = owner
        self._guard = guard
        self._lock = RLock()
        self._depth = 0
        # Our share of the knob could not be given back.
        self._owing = False
        reason = why_not_expedited() if mode is BarrierMode.AUTO else None
        self.note = reason or ""
        self.expedites = mode is not BarrierMode.NORMAL and reason is None

    @contextmanager
    def short_waits(self) -> Iterator[None]:
        """While in this block, grace periods are expedited, if they may be.

        Never raises: what cannot be expedited, or guarded, is waited for; what cannot be put back
        is owed.
        """
        with self._lock:
            if self.expedites and self._depth == 0 and not self._owing:
                try:
                    self._guard()
                    self._knob.take(self._owner)
                except (OSError, BatchprobeError) as error:
                    # Slow is better than not at all.
                    self.note = f"grace periods are not expedited: {error}"
                    self.expedites = False
            taken = self.expedites
            self._depth += taken
        try:
            yield
        finally:
            with self._lock:
                self._depth -= taken
                self._owing = self._owing or (taken and self._depth == 0)
            self.restore()

    def restore(self) -> KernelError | None:
        """Give the knob back if nobody here needs it; why it could not be, if it could not."""
        with self._lock:
            if not self._owing or self._depth:
                return None
            try:
                self._knob.give_back(self._owner)
            except OSError as error:
                return KernelError("giving rcu_expedited back", error.errno or 0)
            self._owing = False
            return None

    def wait(self) -> int:
        """Wait until every handler that was running has finished; the number of waits it took.

        Raises KernelError where the kernel offers no such wait.
        """
        try:
            bpf.membarrier_global()
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
    import struct  # noqa: PLC0415  (few kernels need it)

    from batchprobe.sys import fds  # noqa: PLC0415  (likewise)

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
