# SPDX-License-Identifier: Apache-2.0
"""One guest, from its start to its end."""

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from _vm import cpio
from _vm.errors import STATUS_BOOT, STATUS_GONE, STATUS_PANIC, VmError
from _vm.frames import ProtocolError
from _vm.qemu import Machine, command_line, share_tag
from _vm.relay import Command, Relay
from _vm.run import progress

_HERE: Final = Path(__file__).parent
_SHOWN_LINES: Final = 40
_LINES_BEFORE: Final = 4
_PANIC: Final = re.compile(r"Kernel panic - not syncing")
_TROUBLE: Final = re.compile(
    r"Kernel panic|BUG:|Oops:|WARNING: |general protection fault|INFO: .* (stall|blocked for)"
)


def run_guest(
    machine: Machine,
    command: Command,
    boot_timeout: float,
    timeout: float | None,
    keep_console: Path | None,
) -> int:
    """Run `command` in a new guest; its exit status. The guest is gone afterwards."""
    with _memory_file("console") as console, _memory_file("qemu") as messages:
        try:
            with _qemu(machine, console, messages) as agent:
                status = Relay(agent, command, boot_timeout, timeout).run()
            _complain(_text(console))
            return status
        except ProtocolError as error:
            raise VmError(f"the guest's agent broke the protocol: {error}", STATUS_GONE) from error
        except VmError as error:
            raise _explain(error, _text(console), _text(messages)) from error
        finally:
            if keep_console:
                keep_console.write_bytes(_content(console))


@contextlib.contextmanager
def _qemu(machine: Machine, console: int, messages: int) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs, _memory_file("initrd") as initrd:
        with os.fdopen(os.dup(initrd), "wb") as file:
            file.write(machine.kernel.initramfs.read_bytes())
            file.write(_overlay(machine))
        arguments = command_line(machine, agent=theirs, console=console, initrd=initrd)
        # The guest dies with us even if we are killed. Its own session shields it from Ctrl-C.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            pass_fds=(theirs.fileno(), console, initrd),
            start_new_session=True,
        )
        try:
            theirs.close()
            yield ours
        finally:
            process.kill()
            process.wait()


def _overlay(machine: Machine) -> bytes:
    """The part of the initramfs that differs per guest, as a second archive."""
    options = "trans=virtio,version=9p2000.L,msize=262144,cache=mmap"
    shares = [
        f"{share_tag(n)} {fstab_path(Path('/new', *path.parts[1:]))} 9p {options} 0 0\n"
        for n, path in enumerate(machine.shares)
    ]
    return cpio.archive(
        [
            cpio.Entry("init", (_HERE / "init.sh").read_bytes()),
            cpio.Entry("shares", "".join(shares).encode()),
            cpio.directory("agent"),
            cpio.directory("agent/_vm"),
            cpio.Entry("agent/agent.py", (_HERE / "agent.py").read_bytes()),
            cpio.Entry("agent/_vm/frames.py", (_HERE / "frames.py").read_bytes()),
        ]
    )


def fstab_path(path: Path) -> str:
    """A path escaped for fstab."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in str(path))


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    fd = os.memfd_create(name)
    try:
        yield fd
    finally:
        os.close(fd)


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _text(fd: int) -> str:
    return _content(fd).decode(errors="replace")


def _explain(error: VmError, console: str, messages: str) -> VmError:
    """The error with the console output and QEMU's messages."""
    text, status = str(error), error.status
    lines = [line for line in console.replace("\r", "").splitlines() if line]
    if _PANIC.search(console):
        text, status = "the guest's kernel panicked", STATUS_PANIC
        trouble = next(n for n, line in enumerate(lines) if _TROUBLE.search(line))
        lines = lines[max(0, trouble - _LINES_BEFORE) :]
    elif status in {STATUS_BOOT, STATUS_GONE}:
        lines = lines[-_SHOWN_LINES:]
    else:
        return error
    shown = [*messages.splitlines(), *lines[:_SHOWN_LINES]]
    return VmError("\n  | ".join([text, *shown]), status)


def _complain(console: str) -> None:
    """Report an oops that the guest survived."""
    found = [line.strip() for line in console.splitlines() if _TROUBLE.search(line)]
    if found:
        progress(f"the guest's kernel reported trouble (--console FILE keeps it): {found[0]}")
