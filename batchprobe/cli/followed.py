# SPDX-License-Identifier: Apache-2.0
"""The processes of a tree, with their names and exit statuses, as the kernel reports them while the
command traces. For `-v` only: imported where that is given, after the attach.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from batchprobe.cli.family import Family, Followed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

__all__ = ["Followed", "FollowedProcesses"]

# include/uapi/linux/cn_proc.h
_LISTEN, _IGNORE = 1, 2
# Where an answer has its error number: behind nlmsghdr, cn_msg, and what, cpu and timestamp_ns.
_ERROR_AT = 52
_MESSAGE_SIZE = 4096
_MOST_AT_ONCE = 4096
# The kernel answers before the request returns.
_ANSWER_SECONDS = 0.5
# An import cannot be interrupted.
_END_SECONDS = 5.0
_OUTSIDE = (
    "the kernel reports processes only to the initial network, user and process namespaces: run it "
    "on the host, outside the container"
)
_WHY = {
    errno.ECONNREFUSED: _OUTSIDE,
    errno.EPROTONOSUPPORT: "this kernel reports no processes (CONFIG_PROC_EVENTS)",
    errno.EPERM: "the kernel reports processes only with CAP_NET_ADMIN: run it with sudo",
}


class _UnavailableError(Exception):
    """Why no processes can be followed."""


class FollowedProcesses:
    """Follows processes and their descendants from its creation to `close`, in a thread of its own.

    A process is missed that begins and ends before `wait` returns, or while the kernel's messages
    overrun the socket's buffer. Nothing is raised where processes cannot be followed. Any thread
    may call.
    """

    def __init__(self, roots: Iterable[int] = ()) -> None:
        self.unavailable = ""
        """Why no processes are followed; empty if they are, or will be. Final after `wait`."""
        self.overruns = 0
        """How often messages were lost, so that what they reported was looked for in /proc."""
        self._tree = Family(roots)
        self._must_look = False
        self._lock = threading.Lock()
        self._decided = threading.Event()
        self._stop_writer = -1
        self._thread = threading.Thread(target=self._run, name="followed processes", daemon=True)
        try:
            self._stop_reader, self._stop_writer = os.pipe()
        except OSError as error:
            self._give_up(f"{error.strerror}")
            return
        try:
            self._thread.start()
        except RuntimeError as error:
            os.close(self._stop_reader)
            self._give_up(str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until processes are followed or cannot be; returns whether that is decided."""
        return self._decided.wait(seconds)

    def follow(self, pid: int) -> None:
        """Follow one more process, and its descendants."""
        with self._lock:
            self._tree.add_root(pid)

    def processes(self) -> list[Followed]:
        """The processes so far, in the order in which they were first seen, as they are now."""
        with self._lock:
            return self._tree.processes()

    @property
    def not_kept(self) -> int:
        """How many more there were than are kept."""
        return self._tree.not_kept

    def close(self) -> None:
        """Stop following. What was found stays; a second call does nothing."""
        writer, self._stop_writer = self._stop_writer, -1
        if writer >= 0:
            os.close(writer)
            if self._thread.ident is not None:
                self._thread.join(_END_SECONDS)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        # They are for the main thread, which they wake.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._follow_until_closed()
        except _UnavailableError as error:
            self._give_up(str(error))
        except OSError as error:
            self._give_up(_WHY.get(error.errno or 0, f"{error.strerror}"))
        finally:
            self._decided.set()
            os.close(self._stop_reader)

    def _give_up(self, why: str) -> None:
        self.unavailable = f"processes are not followed: {why}"
        self._decided.set()

    def _follow_until_closed(self) -> None:
        events = _opened()
        try:
            _listen(events)
            try:
                with self._lock:
                    self._tree.look()
                self._decided.set()
                self._read_until_closed(events)
            finally:
                # The kernel counts listeners, and does not see that one is gone
                # (cn_proc_mcast_ctl(), drivers/connector/cn_proc.c).
                _send(events, _IGNORE)
        finally:
            events.close()

    def _read_until_closed(self, events: Any) -> None:
        incoming = select.poll()
        incoming.register(self._stop_reader, select.POLLIN)
        incoming.register(events.fileno(), select.POLLIN)
        is_open = True
        while is_open:
            is_open = self._stop_reader not in dict(incoming.poll())
            # What came before the end is read, too.
            self._read(events)

    def _read(self, events: Any) -> None:
        """Read all that waits, or so much that others have their turn."""
        for _ in range(_MOST_AT_ONCE):
            try:
                data = _receive(events)
            except BlockingIOError:
                if self._must_look:
                    # Only now, so that no message older than the look comes after it.
                    self._must_look = False
                    with self._lock:
                        self._tree.look()
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                self._must_look = True
                continue
            for event in events.marshal.parse(data):
                with self._lock:
                    self._note(event)

    def _note(self, event: Any) -> None:
        tree = self._tree
        match event["event"]:
            case "PROC_EVENT_FORK" if event["child_pid"] == event["child_tgid"]:
                tree.forked(event["parent_tgid"], event["child_tgid"])
            case "PROC_EVENT_EXEC":
                tree.executed(event["process_tgid"])
            case "PROC_EVENT_COMM" if event["process_pid"] == event["process_tgid"]:
                tree.renamed(event["process_tgid"])
            case "PROC_EVENT_EXIT":
                tree.exited(event["process_pid"], event["process_tgid"], event["exit_code"])


def _opened() -> Any:
    """A bound socket of pyroute2, of which this module uses neither put() nor get().

    They run an event loop, which takes messages from the socket itself: one that waits for ever if
    none comes, and one that raises the same error ever after if some were lost.
    """
    try:
        from pyroute2.netlink.connector.cn_proc import (  # noqa: PLC0415  (slow)
            PROC_EVENT_COMM,
            ProcEventSocket,
            proc_event_exec,
        )
    except ImportError as error:
        raise _UnavailableError(f"{error}: install pyroute2") from error
    events = ProcEventSocket()
    try:
        events.bind()
    except KeyError as error:
        # "No free address": pyroute2 tries many, whatever the kernel said.
        events.close()
        raise _UnavailableError(_WHY[errno.EPERM]) from error
    # The name may be any bytes, and pyroute2 raises an error if it is not UTF-8.
    events.register_policy(PROC_EVENT_COMM, proc_event_exec)
    return events


def _send(events: Any, operation: int) -> None:
    from pyroute2.netlink import NLMSG_DONE  # noqa: PLC0415  (as above)
    from pyroute2.netlink.connector.cn_proc import (  # noqa: PLC0415  (as above)
        CN_IDX_PROC,
        CN_VAL_PROC,
        proc_event_control,
    )

    message = proc_event_control()
    message["idx"], message["val"] = CN_IDX_PROC, CN_VAL_PROC
    message["ack"] = os.getpid()
    message["len"] = 4
    message["action"] = operation
    message["header"].update(type=NLMSG_DONE, flags=0, sequence_number=0, pid=events.epid)
    message.encode()
    events.send(message.data)


def _receive(events: Any) -> bytes:
    data: bytes = events.recv(_MESSAGE_SIZE, socket.MSG_DONTWAIT)
    return data


def _listen(events: Any) -> None:
    """Ask for messages, and wait for the answer."""
    _send(events, _LISTEN)
    incoming = select.poll()
    incoming.register(events.fileno(), select.POLLIN)
    end = time.monotonic() + _ANSWER_SECONDS
    while (left := end - time.monotonic()) > 0:
        incoming.poll(left * 1000)
        # What others lost, or what comes before the answer, is found by the first look.
        with suppress(BlockingIOError):
            data = _receive(events)
            for message in events.marshal.parse(data):
                # The kernel adds one (cn_proc_ack(), drivers/connector/cn_proc.c).
                if message["event"] == "PROC_EVENT_NONE" and message["ack"] == os.getpid() + 1:
                    (error,) = struct.unpack_from("=I", data, _ERROR_AT)
                    if error:
                        raise OSError(error, os.strerror(error))
                    return
    # Requests from other user and process namespaces have no answer at all (cn_proc_mcast_ctl()).
    raise _UnavailableError(_OUTSIDE)
