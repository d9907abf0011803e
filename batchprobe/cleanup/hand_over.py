# SPDX-License-Identifier: Apache-2.0
"""Hands remains over to the guardian, and follows what it does with them."""

from __future__ import annotations

import os
import select
import struct
import time
from _socket import SCM_RIGHTS, SOL_SOCKET, socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from batchprobe.cleanup.guardian import LAST, MORE, Guardian
from batchprobe.cleanup.ongoing import begin
from batchprobe.cleanup.removal import refusal
from batchprobe.commit.queue import Remains, RemovalFailure
from batchprobe.sys import fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.commit.queue import Wait

__all__ = ["hand_over"]

# SCM_MAX_FD, include/net/scm.h
_MOST_FDS = 253
_POLL_SECONDS = 0.05


def hand_over(
    guardian: Guardian, remains: Remains, wait: Wait, progress: Callable[[int, int], None]
) -> tuple[list[RemovalFailure], bool] | None:
    """Have the guardian remove all, and wait as long as `wait` says.

    Returns what was refused, which is all that `remains` keeps, and whether the guardian is still
    at it. None if it took nothing over or was killed: then what `remains` has is still to be done.
    """
    try:
        reader, writer = os.pipe()
    except OSError:
        return None
    try:
        if not _send_all(guardian, remains, writer):
            return None
        guardian.is_busy = True
        return _follow(guardian, remains, wait, progress, reader)
    finally:
        os.close(reader)


def _send_all(guardian: Guardian, remains: Remains, answers: int) -> bool:
    """Send all, and close `answers`; returns whether the guardian has it.

    The descriptors are closed here too, or the end of this process would wait for what their last
    close waits for. Until the guardian reads them, the socket keeps them open.
    """
    others = [answers]
    guardian.prepare()
    try:
        # A file, because thousands of commands would fill the socket.
        others.insert(0, os.memfd_create("batchprobe"))
        _write(others[0], "\n".join(remains.commands))
        # Without the state folder, `cleanup --wait` cannot see this removal.
        with suppress(OSError):
            others.append(begin())
        for at in range(0, len(remains.fds), _MOST_FDS):
            _send(guardian.socket, MORE, remains.fds[at : at + _MOST_FDS])
        # Before the last message, after which the guardian begins to close: the last close waits.
        while remains.fds:
            fds.close(remains.fds.pop())
        _send(guardian.socket, LAST, others)
    except OSError:
        # The guardian was killed, or the kernel does not pass that many descriptors. It closes
        # those that it received.
        with suppress(OSError):
            _send(guardian.socket, LAST, ())
        return False
    finally:
        for fd in others:
            os.close(fd)
    return True


def _follow(
    guardian: Guardian,
    remains: Remains,
    wait: Wait,
    progress: Callable[[int, int], None],
    reader: int,
) -> tuple[list[RemovalFailure], bool] | None:
    refused: dict[str, RemovalFailure] = {}
    answers = _answers(reader)
    if callable(wait):
        progress(0, max(len(remains.commands), 1))
    while callable(wait) and wait():
        for word, *rest in next(answers):
            if word == "progress":
                progress(int(rest[0]), int(rest[1]))
            elif word == "refused":
                refused[rest[1]] = refusal(rest[1], int(rest[0]))
            elif word == "done":
                guardian.is_busy = False
                remains.commands = list(refused)
                return list(refused.values()), False
            else:
                while not guardian.has_ended():
                    time.sleep(_POLL_SECONDS)
                return None
    remains.commands = []
    return [], True


def _answers(reader: int) -> Iterator[list[list[str]]]:
    """The answers that came within a moment, each in words; an empty word is the end."""
    # Not select(2), whose descriptors are below 1,024.
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    unfinished = b""
    while True:
        data = b""
        if poll.poll(_POLL_SECONDS * 1000):
            data = os.read(reader, 1 << 16)
            if not data:
                yield [[""]]
        *lines, unfinished = (unfinished + data).split(b"\n")
        yield [line.decode().split(" ", 2) for line in lines]


def _send(fd: int, word: str, some: Sequence[int]) -> None:
    ours = socket(fileno=fd)
    try:
        rights = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(some)}i", *some))] if some else []
        ours.sendmsg([word.encode()], rights)
    finally:
        ours.detach()


def _write(fd: int, text: str) -> None:
    with open(fd, "w", closefd=False) as file:
        file.write(text)
