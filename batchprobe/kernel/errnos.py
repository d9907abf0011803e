# SPDX-License-Identifier: Apache-2.0
"""Names of the errors that functions of the kernel return."""

from __future__ import annotations

import errno

__all__ = ["ERRNOS", "errno_name"]

# Functions return these too, but no system call does, so that the errno module lacks them
# (include/linux/errno.h).
_KERNEL_ERRORS = {
    "ERESTARTSYS": 512,
    "ERESTARTNOINTR": 513,
    "ERESTARTNOHAND": 514,
    "ENOIOCTLCMD": 515,
    "ERESTART_RESTARTBLOCK": 516,
    "EPROBE_DEFER": 517,
    "EOPENSTALE": 518,
    "ENOPARAM": 519,
    "EBADHANDLE": 521,
    "ENOTSYNC": 522,
    "EBADCOOKIE": 523,
    "ENOTSUPP": 524,
    "ETOOSMALL": 525,
    "ESERVERFAULT": 526,
    "EBADTYPE": 527,
    "EJUKEBOX": 528,
    "EIOCBQUEUED": 529,
    "ERECALLCONFLICT": 530,
    "ENOGRACE": 531,
}
ERRNOS = {name: value for name, value in vars(errno).items() if name[0] == "E"} | _KERNEL_ERRORS
"""Numbers by name."""
# Of two names for one number, the one that the kernel's sources use.
_PREFERRED = ("EAGAIN", "EDEADLK", "EOPNOTSUPP")
_NAMES = {value: name for name, value in ERRNOS.items()} | {
    ERRNOS[name]: name for name in _PREFERRED
}


def errno_name(number: int) -> str:
    """`ENOSPC` for 28; `E4000` for a number that has no name."""
    return _NAMES.get(number, f"E{number}")
