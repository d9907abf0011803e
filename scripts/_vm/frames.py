# SPDX-License-Identifier: Apache-2.0
"""The protocol of the host and the guest's agent, over one byte stream.

A frame is a kind, a channel and a payload. Data is flow-controlled by credit: a sender may have at
most WINDOW bytes of a channel in flight, and the receiver grants more as it passes data on. So a
stream that nobody reads never blocks the others.

The agent imports this at every boot under emulation, so it imports little itself.
"""

import struct

READY = 1  # guest: the agent listens
START = 2  # host: payload of pack_start()
DATA = 3
EOF = 4  # the channel's sender has no more
CREDIT = 5  # payload: number of bytes passed on
CLOSED = 6  # the channel's receiver takes no more
SIGNAL = 7  # host: for the command; the channel field holds the number
WINSIZE = 8  # host: payload of pack_winsize()
EXIT = 9  # guest: the command ended; the channel field holds its status
FAILED = 10  # guest: the command could not be started; payload: why, channel: status

STDIN, STDOUT, STDERR, TTY_IN, TTY_OUT = range(5)

WINDOW = 256 * 1024
CHUNK = 16 * 1024

_HEADER = struct.Struct("!BBI")
_NUMBER = struct.Struct("!I")
_WINSIZE = struct.Struct("!HH")
_MAX_PAYLOAD = 16 * 1024 * 1024


class ProtocolError(Exception):
    """The other side sent something that is not a frame."""


def pack(kind: int, channel: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEADER.pack(kind, channel, len(payload)) + payload


def pack_credit(channel: int, count: int) -> bytes:
    """A grant of `count` more bytes."""
    return pack(CREDIT, channel, _NUMBER.pack(count))


def unpack_credit(payload: bytes) -> int:
    """The number that a CREDIT frame grants."""
    return int(_unpack(_NUMBER, payload)[0])


def pack_winsize(rows: int, columns: int) -> bytes:
    """A terminal's new size."""
    return pack(WINSIZE, 0, _WINSIZE.pack(rows, columns))


def unpack_winsize(payload: bytes) -> tuple[int, int]:
    """Rows and columns of a WINSIZE frame."""
    rows, columns = _unpack(_WINSIZE, payload)
    return rows, columns


def pack_start(
    argv: list[bytes],
    env: list[bytes],
    cwd: bytes,
    terminals: frozenset[int],
    size: tuple[int, int],
    cooked: bool,
) -> bytes:
    """A START frame. `terminals`: which of the descriptors 0 to 2 are the terminal; `cooked`: the
    guest's terminal echoes and translates output (off if the host's terminal does)."""
    head = f"{len(argv)} {size[0]} {size[1]} {int(cooked)} " + "".join(map(str, sorted(terminals)))
    return pack(START, 0, b"\0".join([head.encode(), cwd, *argv, *env]))


def unpack_start(
    payload: bytes,
) -> tuple[list[bytes], list[bytes], bytes, frozenset[int], tuple[int, int], bool]:
    """What pack_start() packed."""
    head, cwd, *rest = payload.split(b"\0")
    count, rows, columns, cooked, terminals = head.decode().split(" ")
    argc = int(count)
    return (
        rest[:argc],
        rest[argc:],
        cwd,
        frozenset(map(int, terminals)),
        (int(rows), int(columns)),
        cooked == "1",
    )


def _unpack(layout: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise ProtocolError(f"a payload of {len(payload)} bytes instead of {layout.size}")
    return layout.unpack(payload)


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that `data` completes: kind, channel, payload."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            kind, channel, length = _HEADER.unpack_from(self._buffer, start)
            if not READY <= kind <= FAILED or length > _MAX_PAYLOAD:
                head = bytes(self._buffer[start : start + _HEADER.size])
                raise ProtocolError(f"{head!r} does not begin a frame")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, channel, bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames


class Outgoing:
    """A channel's sending side: how much may be sent now."""

    def __init__(self) -> None:
        self._credit = WINDOW

    def room(self) -> int:
        """Bytes that may be sent in one frame now."""
        return min(self._credit, CHUNK)

    def sent(self, count: int) -> None:
        """Account for a DATA frame."""
        self._credit -= count

    def granted(self, count: int) -> None:
        """Account for a CREDIT frame."""
        self._credit += count


class Incoming:
    """A channel's receiving side: data to be written to a descriptor."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ended = False

    def finished(self) -> bool:
        """Nothing waits, and nothing more will come."""
        return self.ended and not self.buffer
