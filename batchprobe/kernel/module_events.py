# SPDX-License-Identifier: Apache-2.0
"""The kernel's own announcements that modules come and go (uevents).

Imported only where a probe waits for a module.
"""

from __future__ import annotations

import errno
import socket

from batchprobe._util.gc_pause import gc_pause
from batchprobe.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["ModuleEvents"]

# What the kernel itself sends. udevd repeats it to another group.
_FROM_KERNEL = 1
# UEVENT_BUFFER_SIZE in include/linux/kobject.h is 2,048, and a header comes before it.
_MESSAGE_SIZE = 8192


class ModuleEvents:
    """Announcements since it was opened. Only the thread that opened it may use it.

    A module is announced after its init function (do_init_module(), kernel/module/main.c; before
    Linux 5.11 and 5.10's stable releases ahead of it: 38dc717e9715 ("module: delay kobject uevent
    until after module init call")). Its end is announced after its exit function, and moments
    before its symbols are gone (free_module()).
    """

    def __init__(self) -> None:
        """Raises KernelError if the socket cannot be had, ImportError without pyroute2."""
        try:
            with gc_pause():
                from pyroute2.netlink.uevent import UeventSocket  # noqa: PLC0415  (slow)
            self._socket = UeventSocket()
        except OSError as error:
            raise KernelError("socket(NETLINK_KOBJECT_UEVENT)", error.errno or 0) from error
        try:
            self._socket.bind(groups=_FROM_KERNEL)
        except (KeyError, OSError) as error:
            self.close()
            # KeyError is pyroute2's for "no free address", after many tries.
            code = error.errno if isinstance(error, OSError) else None
            raise KernelError(
                "bind() of a socket for uevents", code or errno.EADDRNOTAVAIL
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when `drain` has something to read."""
        fd: int = self._socket.fileno()
        return fd

    def drain(self) -> bool:
        """Read all that waits, without blocking; returns whether a module came or went, or may
        have. Raises KernelError.
        """
        found = False
        while True:
            try:
                # Not get(): it blocks, and keeps an overrun as its last word.
                data = self._socket.recv(_MESSAGE_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                # An overrun: messages were lost, and which ones is unknown.
                if error.errno != errno.ENOBUFS:
                    raise KernelError("recv() of uevents", error.errno or 0) from error
                found = True
            else:
                found = self._is_of_module(data) or found

    def _is_of_module(self, data: bytes) -> bool:
        try:
            return any(
                message.get("SUBSYSTEM") == "module" and message.get("ACTION") in {"add", "remove"}
                for message in self._socket.marshal.parse(data)
            )
        except UnicodeDecodeError:
            # A device may have any bytes in its name; a module's are ASCII.
            return False

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()
