# SPDX-License-Identifier: Apache-2.0
"""The host's side of a running guest: its streams, signals and terminal."""

import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from _vm import frames
from _vm.errors import STATUS_BOOT, STATUS_GONE, STATUS_KILLED, VmError

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# A command may take its time after one Ctrl-C and say so after the second; the third ends it.
_PATIENT_SIGNALS = 2
_GRACE_SECONDS = 10.0
# ^] three times within a second, as in other virtual machine consoles.
_ESCAPE = 0x1D
_ESCAPE_TIMES = 3


@dataclass(frozen=True)
class Command:
    """The command to run in the guest."""

    argv: Sequence[str]
    env: Sequence[str]
    cwd: str


class Relay:
    """Talks to the guest's agent until the command has ended."""

    def __init__(
        self,
        agent: socket.socket,
        command: Command,
        boot_seconds: float,
        seconds: float | None = None,
    ) -> None:
        self._agent = agent
        self._command = command
        self._boot_seconds = boot_seconds
        self._boot_deadline = time.monotonic() + boot_seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._kill_deadline: float | None = None
        self._decoder = frames.Decoder()
        self._to_guest = bytearray()
        self._running = False
        self._status: int | None = None
        self._failure: VmError | None = None
        self._signals: list[int] = []
        self._signal_count = 0
        self._escapes: list[float] = []
        self._terminals = frozenset(fd for fd in (0, 1, 2) if _is_terminal(fd))
        # Interactive: the guest's terminal does all translation, ours none.
        self._raw = {0, 1} <= self._terminals
        self._sources: dict[int, int] = {}
        self._credit: dict[int, frames.Outgoing] = {}
        self._sinks: dict[int, int] = {}
        self._pending: dict[int, frames.Incoming] = {}
        self._set_up_streams()

    def _set_up_streams(self) -> None:
        for channel in (frames.STDIN, frames.STDOUT, frames.STDERR):
            if channel in self._terminals:
                continue
            if channel == frames.STDIN:
                self._sources[channel] = 0
                self._credit[channel] = frames.Outgoing()
            else:
                self._sinks[channel] = channel
                self._pending[channel] = frames.Incoming()
        if 0 in self._terminals:
            self._sources[frames.TTY_IN] = 0
            self._credit[frames.TTY_IN] = frames.Outgoing()
        if self._terminals:
            self._sinks[frames.TTY_OUT] = next(fd for fd in (1, 2, 0) if fd in self._terminals)
            self._pending[frames.TTY_OUT] = frames.Incoming()

    def run(self) -> int:
        """The command's exit status."""
        with _wakeup() as wake, self._handlers(), self._terminal():
            while True:
                poll = select.poll()
                poll.register(wake, select.POLLIN)
                out = select.POLLOUT if self._to_guest else 0
                if self._status is None and self._failure is None:
                    poll.register(self._agent, select.POLLIN | out)
                self._register_streams(poll)
                ready = dict(poll.poll(self._patience()))
                if wake in ready:
                    os.read(wake, 4096)
                self._forward_signals()
                self._check_deadlines()
                self._serve(ready)
                if any(pending.buffer for pending in self._pending.values()):
                    continue
                if self._failure is not None:
                    raise self._failure
                if self._status is not None:
                    return self._status

    def _register_streams(self, poll: select.poll) -> None:
        wanted: dict[int, int] = {}
        if self._running and len(self._to_guest) < 4 * frames.CHUNK:
            for channel, fd in self._sources.items():
                if self._credit[channel].room():
                    wanted[fd] = wanted.get(fd, 0) | select.POLLIN
        for channel, fd in self._sinks.items():
            if self._pending[channel].buffer:
                wanted[fd] = wanted.get(fd, 0) | select.POLLOUT
        for fd, events in wanted.items():
            poll.register(fd, events)

    def _serve(self, ready: dict[int, int]) -> None:
        trouble = select.POLLHUP | select.POLLERR
        if ready.get(self._agent.fileno(), 0) & (select.POLLIN | trouble):
            self._read_agent()
        for channel, fd in list(self._sources.items()):
            if ready.get(fd, 0) & (select.POLLIN | trouble):
                self._read_source(channel, fd)
        for channel, fd in list(self._sinks.items()):
            if ready.get(fd, 0) & (select.POLLOUT | trouble):
                self._write_sink(channel, fd)
        if self._to_guest and self._status is None and self._failure is None:
            try:
                count = self._agent.send(self._to_guest)
            except (BlockingIOError, ConnectionError):
                return
            del self._to_guest[:count]

    def _read_agent(self) -> None:
        try:
            data = self._agent.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._failure = VmError("the guest ended before its command did", STATUS_GONE)
        for kind, channel, payload in self._decoder.feed(data):
            self._handle(kind, channel, payload)

    def _handle(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == frames.READY:
            self._start()
        elif kind == frames.DATA and channel in self._sinks:
            self._pending[channel].buffer += payload
        elif kind == frames.CREDIT and channel in self._credit:
            self._credit[channel].granted(frames.unpack_credit(payload))
        elif kind == frames.CLOSED and channel in self._sources:
            del self._sources[channel]
        elif kind == frames.EXIT:
            self._status = channel
        elif kind == frames.FAILED:
            text = payload.decode(errors="replace")
            self._failure = VmError(f"cannot run {self._command.argv[0]}: {text}", channel)

    def _start(self) -> None:
        self._running = True
        command = self._command
        self._to_guest += frames.pack_start(
            [os.fsencode(a) for a in command.argv],
            [os.fsencode(e) for e in command.env],
            os.fsencode(command.cwd),
            self._terminals,
            self._size(),
            cooked=self._raw or not self._terminals,
        )
        if self._raw:
            tty.setraw(0, termios.TCSADRAIN)

    def _read_source(self, channel: int, fd: int) -> None:
        room = self._credit[channel].room()
        if not room:
            return
        try:
            data = os.read(fd, room)
        except OSError:
            data = b""
        if not data:
            del self._sources[channel]
            self._to_guest += frames.pack(frames.EOF, channel)
            return
        if channel == frames.TTY_IN:
            self._watch_escape(data)
        self._credit[channel].sent(len(data))
        self._to_guest += frames.pack(frames.DATA, channel, data)

    def _write_sink(self, channel: int, fd: int) -> None:
        pending = self._pending[channel]
        try:
            # A pipe that is ready takes this many bytes without blocking.
            count = os.write(fd, pending.buffer[: select.PIPE_BUF])
        except BlockingIOError:
            return
        except OSError:
            del self._sinks[channel]
            pending.buffer.clear()
            self._to_guest += frames.pack(frames.CLOSED, channel)
            return
        del pending.buffer[:count]
        self._to_guest += frames.pack_credit(channel, count)

    def _watch_escape(self, data: bytes) -> None:
        now = time.monotonic()
        for byte in data:
            self._escapes = [*self._escapes, now] if byte == _ESCAPE else []
        recent = [t for t in self._escapes if now - t < 1.0]
        if len(recent) >= _ESCAPE_TIMES:
            raise VmError("ended by ^] three times", STATUS_KILLED)

    def _patience(self) -> float | None:
        limits = (self._boot_limit(), self._deadline, self._kill_deadline)
        deadlines = [limit for limit in limits if limit is not None]
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1

    def _boot_limit(self) -> float | None:
        return None if self._running else self._boot_deadline

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        boot = self._boot_limit()
        if boot is not None and now >= boot:
            raise VmError(f"the guest was not up after {self._boot_seconds:.0f} s", STATUS_BOOT)
        if self._deadline is not None and now >= self._deadline:
            raise VmError("the time limit has passed", STATUS_KILLED)
        if self._kill_deadline is not None and now >= self._kill_deadline:
            raise VmError("the command did not end after several signals", STATUS_KILLED)

    def _forward_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGWINCH:
                if self._running:
                    self._to_guest += frames.pack_winsize(*self._size())
                continue
            if not self._running:
                name = signal.Signals(number).name
                raise VmError(f"{name} before the command began", 128 + number)
            self._to_guest += frames.pack(frames.SIGNAL, number)
            self._signal_count += 1
            if self._signal_count > _PATIENT_SIGNALS and self._kill_deadline is None:
                self._kill_deadline = time.monotonic() + _GRACE_SECONDS

    def _size(self) -> tuple[int, int]:
        for fd in self._terminals:
            packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
            rows, columns, _, _ = struct.unpack("HHHH", packed)
            if rows and columns:
                return rows, columns
        return 24, 80

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        before = {n: signal.signal(n, note) for n in (*FORWARDED, signal.SIGWINCH)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        if not self._raw:
            yield
            return
        modes = termios.tcgetattr(0)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, modes)


@contextmanager
def _wakeup() -> Iterator[int]:
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
