# SPDX-License-Identifier: Apache-2.0
"""When to give hits in modules that were loaded after the attach to their probes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread

from batchprobe.errors import KernelError
from batchprobe.probe import Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from batchprobe.kernel.module_events import ModuleEvents

__all__ = ["ClaimTimes"]

_SECONDS = 1.0


class ClaimTimes:
    """Each claim has to come while the module is loaded (attach/late_modules.py).

    The kernel's announcement that a module came is one moment for it. The one that a module goes
    comes too late, and a function may have its first hit at any time between: as long as a module
    that came late is loaded, a claim is due every second as well. Without such a module none is.
    """

    def __init__(
        self, probes: Iterable[Probe], explain: Callable[[str], None] | None = None
    ) -> None:
        """`explain` is called with a sentence if the announcements cannot be had. Then a claim is
        due every second, whatever is loaded.
        """
        waiting = [
            probe for probe in probes if probe.target.module and probe.holder.maps.has_unclaimed
        ]
        # The folder that each module had at the attach; None for one that was not loaded.
        self._folders = {
            probe.target.module: None if probe.address is None else _folder(probe.target.module)
            for probe in waiting
        }
        self._explain = explain
        self._loader: Thread | None = None
        self._events: ModuleEvents | None = None
        self._gave_up = False
        self.due = time.monotonic() + _SECONDS if waiting else None
        """When to claim if no module comes or goes; None for never."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    @property
    def descriptors(self) -> list[int]:
        """Readable when a claim may be due."""
        return [] if self._events is None else [self._events.fileno()]

    def is_due(self, now: float) -> bool:
        """Whether to claim now."""
        return self._modules_changed() or (self.due is not None and now >= self.due)

    def claimed(self, now: float) -> None:
        """A claim was made because it was due."""
        if self._loader is None:
            # Not earlier: the import causes hits, and a short run does without.
            self._load()
        elif self._events is None and not self._gave_up and not self._loader.is_alive():
            self._open()
        must_look = self._events is None or self._has_late_module()
        self.due = now + _SECONDS if must_look else None

    def _load(self) -> None:
        """Begin to import what takes long. In a thread, because a signal must not wait for it."""
        self._loader = Thread(target=_import, name="import", daemon=True)
        try:
            self._loader.start()
        except RuntimeError as error:
            self._give_up(error)

    def _open(self) -> None:
        try:
            from batchprobe.kernel.module_events import ModuleEvents  # noqa: PLC0415  (few need it)

            self._events = ModuleEvents()
        except (ImportError, KernelError) as error:
            self._give_up(error)

    def _has_late_module(self) -> bool:
        now = ((_folder(name), before) for name, before in self._folders.items())
        return any(folder is not None and folder != before for folder, before in now)

    def _modules_changed(self) -> bool:
        if self._events is None:
            return False
        try:
            return self._events.drain()
        except KernelError as error:
            self._close()
            self._give_up(error)
            return True

    def _give_up(self, error: Exception) -> None:
        self._gave_up = True
        if self._explain is not None:
            self._explain(
                f"modules that are loaded later are looked for every second, because the kernel's "
                f"announcements cannot be had: {error}"
            )

    def _close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None


def _folder(module: str) -> int | None:
    """The inode number of a loaded module's folder: another one each time that it is loaded
    (functions/cache.py:loaded_modules).
    """
    try:
        return os.stat(f"/sys/module/{module}").st_ino
    except OSError:
        return None


def _import() -> None:
    # ModuleEvents tries again, and reports what is wrong.
    with suppress(ImportError, OSError):
        import pyroute2.netlink.uevent  # noqa: F401, PLC0415
