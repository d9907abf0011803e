# SPDX-License-Identifier: Apache-2.0
"""Which network namespace a user means: by a name of `ip netns`, a process ID or a path."""

from __future__ import annotations

import os

from batchprobe import arch
from batchprobe.errors import KernelError, UsageError
from batchprobe.sys import libc
from batchprobe.sys.files import exists

__all__ = ["netns_inode"]

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_HOW = "give a name that `ip netns` lists, a process ID, or a path such as /proc/1/ns/net"
_MOST_NAMES = 20


def netns_inode(text: str) -> int:
    """The inode number of a network namespace: in the kernel, net->ns.inum.

    Digits are the ID of a process that is in it, text with a slash is the path of a file that
    stands for it, all else is a name. Raises UsageError where that means none; creates nothing.
    """
    if not text:
        raise UsageError(f"no network namespace is named: {_HOW}")
    if text.isascii() and text.isdigit():
        fd = _open_of_process(text)
    elif "/" in text:
        fd = _open_path(text)
    else:
        fd = _open_name(text)
    try:
        if not _is_network_namespace(fd):
            raise UsageError(f"{text} is no network namespace: {_HOW}")
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _open_of_process(pid: str) -> int:
    path = f"/proc/{pid}/ns/net"
    try:
        return os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError) as error:
        # A zombie has none any more.
        named = f"{_run_folder()}/{pid}"
        remedy = f"the namespace of that name is {named}" if exists(named) else _HOW
        raise UsageError(
            f"network namespace of process {pid}: no such process runs here: {remedy}"
        ) from error
    except OSError as error:
        raise UsageError(_unreadable(path, error)) from error


def _open_path(path: str) -> int:
    try:
        # A FIFO would make us wait for a writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(_unreadable(path, error)) from error
    except ValueError as error:
        raise UsageError(f"network namespace {path!r}: {error}: {_HOW}") from error


def _unreadable(path: str, error: OSError) -> str:
    remedy = "run it with sudo" if isinstance(error, PermissionError) else _HOW
    return f"network namespace {path}: {error.strerror}: {remedy}"


def _open_name(name: str) -> int:
    from pyroute2 import netns  # noqa: PLC0415  (slow, and only names need it)

    try:
        # Without O_CREAT among the flags, it creates nothing.
        fd: int = netns.getnsfd(name, flags=0)
    except (FileNotFoundError, ValueError) as error:
        # ValueError: a name that pyroute2 or open(2) cannot take.
        raise UsageError(f"no network namespace has the name {name}{_names_like(name)}") from error
    except OSError as error:
        raise UsageError(_unreadable(f"{_run_folder()}/{name}", error)) from error
    return fd


def _names_like(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  (only for this error)

    from pyroute2 import netns  # noqa: PLC0415  (as above)

    try:
        names = sorted(netns.listnetns())
    except OSError as error:
        return f", and {_run_folder()} cannot be read: {error.strerror}: {_HOW}"
    if not names:
        return f", nor has any other: {_HOW}"
    likely = get_close_matches(name, names, n=1)
    guess = f"; did you mean {likely[0]}?" if likely else ":"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{guess} there are {', '.join(names[:_MOST_NAMES])}{more}"


def _run_folder() -> str:
    from pyroute2 import netns  # noqa: PLC0415  (as above)

    folder: str = netns.NETNS_RUN_DIR
    return folder


def _is_network_namespace(fd: int) -> bool:
    try:
        kind = libc.ioctl("ioctl(NS_GET_NSTYPE)", fd, arch.current().get_namespace_type, 0)
    except KernelError:
        # Any other file refuses the request, each kind with an error number of its own.
        return False
    return kind == _CLONE_NEWNET
