# SPDX-License-Identifier: Apache-2.0
"""Reports to a service manager that the probes count: the protocol of sd_notify(3).

Imported only where a service manager started the command.
"""

from __future__ import annotations

import socket

from batchprobe.output.stderr import say

__all__ = ["notify_ready"]

# A manager that does not read must not keep the run from ending.
_PATIENCE_SECONDS = 5.0


def notify_ready(address: str, status: str) -> None:
    """Send READY=1 and a line for `systemctl status` to the value of NOTIFY_SOCKET.

    What goes wrong is reported and not raised: the probes count all the same.
    """
    try:
        _send(address, f"READY=1\nSTATUS={status}".encode())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        say(f"the service manager is not told that the probes count: {address}: {reason or error}")


def _send(address: str, message: bytes) -> None:
    if address[:1] not in {"/", "@"}:
        raise ValueError("NOTIFY_SOCKET is neither a path nor an abstract socket (@NAME)")
    # The kernel marks an abstract name with a null byte (unix(7)).
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(_PATIENCE_SECONDS)
        manager.connect(name)
        manager.send(message)
