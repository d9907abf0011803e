# SPDX-License-Identifier: Apache-2.0
"""The guest's first process: runs one command for the host and reports how it ended.

Runs as PID 1 in the guest, which powers off when the host goes away. It imports little: under
emulation each import adds tens of milliseconds to every boot.
"""

import fcntl
import os
import select
import signal
import struct
import termios

from _vm import frames

PORT_NAME = "batchprobe"
_READ = select.POLLIN
_WRITE = select.POLLOUT
_GONE = select.POLLHUP | select.POLLERR
# Read at most this much output of each channel after the command has ended: a process that it left
# behind could write forever.
_LAST_BYTES = 1 << 20
_TTY_EOF = b"\x04"
_TTY_EOF_ERRNO = 5  # EIO: no process has the terminal open any more


class Agent:
    """Runs one command and relays its streams, signals and exit status."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._decoder = frames.Decoder()
        self._to_host = bytearray()
        self._child = 0
        self._status: int | None = None
        self._master = -1
        # Where the command's output is read, by channel.
        self._sources: dict[int, int] = {}
        self._credit: dict[int, frames.Outgoing] = {}
        # Where the command's input is written, by channel.
        self._sinks: dict[int, int] = {}
        self._pending: dict[int, frames.Incoming] = {}
        self._ending = False
        self._last_bytes: dict[int, int] = {}
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = wake_read
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the command has ended and the host knows, or the host is gone."""
        self._to_host += frames.pack(frames.READY)
        while not (self._ending and not self._to_host):
            poll = select.poll()
            poll.register(self._port, _READ | (_WRITE if self._to_host else 0))
            poll.register(self._wake, _READ)
            # Read little ahead of the host: the rest can wait in the command's pipe.
            if len(self._to_host) < 4 * frames.CHUNK:
                for channel, fd in self._sources.items():
                    if self._credit[channel].room():
                        self._add(poll, fd, _READ)
            for channel, fd in self._sinks.items():
                if self._pending[channel].buffer:
                    self._add(poll, fd, _WRITE)
            self._serve(dict(poll.poll()))

    def _add(self, poll: select.poll, fd: int, events: int) -> None:
        # The terminal's master is both a source and a sink.
        try:
            poll.modify(fd, _READ | _WRITE)
        except OSError:
            poll.register(fd, events)

    def _serve(self, ready: dict[int, int]) -> None:
        if ready.get(self._wake, 0):
            os.read(self._wake, 4096)
        if ready.get(self._port, 0) & (_READ | _GONE):
            self._read_port()
        for channel, fd in list(self._sources.items()):
            if ready.get(fd, 0) & (_READ | _GONE):
                self._forward(channel, fd)
        for channel, fd in list(self._sinks.items()):
            if ready.get(fd, 0) & (_WRITE | _GONE):
                self._feed(channel, fd)
        self._reap()
        if self._status is not None and not self._ending:
            self._finish()
        if self._to_host:
            try:
                count = os.write(self._port, self._to_host)
            except BlockingIOError:
                return
            del self._to_host[:count]

    def _read_port(self) -> None:
        try:
            data = os.read(self._port, 65536)
        except BlockingIOError:
            return
        if not data:
            power_off()
        for kind, channel, payload in self._decoder.feed(data):
            self._handle(kind, channel, payload)

    def _handle(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == frames.START:
            self._start(payload)
        elif kind == frames.DATA and channel in self._sinks:
            self._pending[channel].buffer += payload
        elif kind == frames.EOF and channel == frames.TTY_IN:
            self._pending[channel].buffer += _TTY_EOF
        elif kind == frames.EOF and channel in self._sinks:
            self._pending[channel].ended = True
            self._close_sink_if_done(channel)
        elif kind == frames.CREDIT and channel in self._credit:
            self._credit[channel].granted(frames.unpack_credit(payload))
        elif kind == frames.CLOSED and channel in self._sources:
            self._close_source(channel)
        elif kind == frames.SIGNAL:
            self._signal(channel)
        elif kind == frames.WINSIZE and self._master >= 0:
            set_size(self._master, *frames.unpack_winsize(payload))

    def _start(self, payload: bytes) -> None:
        argv, env, cwd, terminals, size, cooked = frames.unpack_start(payload)
        slave = -1
        if terminals:
            self._master, slave = os.openpty()
            set_size(self._master, *size)
            if not cooked:
                modes = termios.tcgetattr(slave)
                modes[1] &= ~termios.OPOST
                modes[3] &= ~termios.ECHO
                termios.tcsetattr(slave, termios.TCSANOW, modes)
            self._add_source(frames.TTY_OUT, self._master)
            self._add_sink(frames.TTY_IN, self._master)
        theirs = [slave, slave, slave]
        for channel in (frames.STDIN, frames.STDOUT, frames.STDERR):
            if channel in terminals:
                continue
            read, write = os.pipe2(os.O_CLOEXEC)
            if channel == frames.STDIN:
                theirs[channel] = read
                self._add_sink(channel, write)
            else:
                theirs[channel] = write
                self._add_source(channel, read)
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child == 0:
            become(argv, env, cwd, theirs, bool(terminals), report_write)
        for fd in {*theirs, report_write}:
            os.close(fd)
        why = os.read(report_read, 4096)
        os.close(report_read)
        if why:
            status, _, text = why.partition(b" ")
            os.waitpid(self._child, 0)
            self._child = 0
            self._to_host += frames.pack(frames.FAILED, int(status), text)
            self._ending = True

    def _add_source(self, channel: int, fd: int) -> None:
        os.set_blocking(fd, False)
        self._sources[channel] = fd
        self._credit[channel] = frames.Outgoing()

    def _add_sink(self, channel: int, fd: int) -> None:
        os.set_blocking(fd, False)
        self._sinks[channel] = fd
        self._pending[channel] = frames.Incoming()

    def _forward(self, channel: int, fd: int) -> int:
        """Send one chunk of the command's output; its size, 0 if there was none to send."""
        room = self._credit[channel].room()
        if not room:
            return 0
        try:
            data = os.read(fd, room)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != _TTY_EOF_ERRNO:
                raise
            data = b""
        if not data:
            self._to_host += frames.pack(frames.EOF, channel)
            self._close_source(channel)
            return 0
        self._credit[channel].sent(len(data))
        self._to_host += frames.pack(frames.DATA, channel, data)
        return len(data)

    def _close_source(self, channel: int) -> None:
        fd = self._sources.pop(channel)
        # Closing the master would hang up the session; the terminal stays until the end.
        if fd != self._master:
            os.close(fd)

    def _feed(self, channel: int, fd: int) -> None:
        pending = self._pending[channel]
        if not pending.buffer:
            return
        try:
            count = os.write(fd, pending.buffer[: frames.CHUNK])
        except BlockingIOError:
            return
        except OSError:
            self._to_host += frames.pack(frames.CLOSED, channel)
            self._close_sink(channel)
            return
        del pending.buffer[:count]
        self._to_host += frames.pack_credit(channel, count)
        self._close_sink_if_done(channel)

    def _close_sink_if_done(self, channel: int) -> None:
        if self._pending[channel].finished():
            self._close_sink(channel)

    def _close_sink(self, channel: int) -> None:
        fd = self._sinks.pop(channel)
        if fd != self._master:
            os.close(fd)

    def _signal(self, number: int) -> None:
        if not self._child or self._status is not None:
            return
        # Only we reap it, so its PID cannot have been reused.
        os.killpg(self._child, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else 128 - code

    def _finish(self) -> None:
        """Once the command has ended: the rest of its output, then its status."""
        for channel, fd in list(self._sources.items()):
            left = self._last_bytes.setdefault(channel, _LAST_BYTES)
            while left > 0 and (count := self._forward(channel, fd)):
                left -= count
            self._last_bytes[channel] = left
            if left > 0 and channel in self._sources and not self._credit[channel].room():
                return
        os.sync()
        self._to_host += frames.pack(frames.EXIT, self._status or 0)
        self._ending = True


def become(
    argv: list[bytes], env: list[bytes], cwd: bytes, stdio: list[int], terminal: bool, report: int
) -> None:
    """In the child: execute the command, or write the reason to `report`."""
    status, text = 126, ""
    try:
        os.setsid()
        if terminal:
            fcntl.ioctl(max(stdio, key=os.isatty), termios.TIOCSCTTY, 0)
        for target, fd in enumerate([os.dup(fd) for fd in stdio]):
            os.dup2(fd, target)
            if fd > 2:
                os.close(fd)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(cwd)
        variables = dict(item.split(b"=", 1) for item in env)
        os.execvpe(argv[0], argv, variables)  # noqa: S606
    except FileNotFoundError as error:
        status, text = 127, f"{error.strerror}"
    except OSError as error:
        text = f"{error.strerror}"
    os.write(report, f"{status} {text}".encode())
    os._exit(status)


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set a terminal's size; the kernel signals its foreground processes."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def open_port() -> int:
    """The virtio-serial port to the host."""
    for name in os.listdir("/sys/class/virtio-ports"):  # noqa: PTH208
        with open(f"/sys/class/virtio-ports/{name}/name") as file:  # noqa: PTH123
            if file.read().strip() == PORT_NAME:
                return os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    raise SystemExit(f"no virtio-serial port is named {PORT_NAME}")


def power_off() -> None:
    """End the virtual machine."""
    os.execv("/usr/bin/busybox", ["busybox", "poweroff", "-f"])  # noqa: S606


def main() -> None:
    """Serve one command, then wait for the host to end the machine."""
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1")):
        os.symlink(target, f"/dev/{name}")  # noqa: PTH211
    os.symlink("fd/2", "/dev/stderr")  # noqa: PTH211
    Agent(open_port()).run()
    signal.set_wakeup_fd(-1)
    # The host ends the machine once it has read everything. Power off if it does not.
    select.poll().poll(10_000)
    power_off()


if __name__ == "__main__":
    main()
