# SPDX-License-Identifier: Apache-2.0
"""Modules that come and go, as the kernel's uevents announce them."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchprobe.kernel.module_events import ModuleEvents

NETLINK_KOBJECT_UEVENT = 15
FROM_KERNEL = 1


@pytest.fixture
def events() -> Iterator[ModuleEvents]:
    with ModuleEvents() as opened:
        yield opened


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """Sends what the kernel would send; udevd ignores messages that are not the kernel's."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as opened:
        opened.bind((0, 0))
        yield opened


def send(sender: socket.socket, action: str, path: str, subsystem: str, **more: str) -> None:
    variables = {"ACTION": action, "DEVPATH": path, "SUBSYSTEM": subsystem, **more}
    lines = (f"{action}@{path}", *(f"{name}={value}" for name, value in variables.items()))
    data = b"".join(line.encode("latin-1") + b"\0" for line in lines)
    try:
        sender.sendto(data, (0, FROM_KERNEL))
    except PermissionError:
        pytest.skip("only root may send uevents")
    except ConnectionRefusedError:
        # The kernel gets a copy too, and may refuse it. The group has its own by then.
        return


def open_files() -> set[str]:
    # The one that lists the folder is closed again.
    fds = [file.name for file in Path("/proc/self/fd").iterdir()]
    return {fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")}


def is_readable(events: ModuleEvents) -> bool:
    return bool(select.select([events.fileno()], [], [], 0)[0])


@pytest.mark.parametrize("action", ["add", "remove"])
def test_a_module_that_comes_or_goes_is_found(
    events: ModuleEvents, sender: socket.socket, action: str
) -> None:
    assert not events.drain()
    send(sender, "add", "/devices/virtual/net/dummy0", "net")
    send(sender, action, "/module/zram", "module")
    send(sender, "add", "/devices/virtual/block/zram0", "block")
    assert is_readable(events)
    assert events.drain()
    assert not is_readable(events)
    assert not events.drain()


def test_other_events_are_read_and_do_not_count(
    events: ModuleEvents, sender: socket.socket
) -> None:
    send(sender, "change", "/module/zram", "module")
    send(sender, "add", "/bus/pci/drivers/module", "drivers")
    # Whatever name a device has: nothing is decoded that might not be text.
    send(sender, "add", "/devices/virtual/net/\xff", "net", INTERFACE="\xff")
    assert is_readable(events)
    assert not events.drain()
    assert not is_readable(events)


def test_an_event_of_the_kernel_itself_is_read(events: ModuleEvents) -> None:
    file = Path("/sys/class/net/lo/uevent")
    if not os.access(file, os.W_OK):
        pytest.skip(f"{file} cannot be written to")
    file.write_text("change")
    assert is_readable(events)
    assert not events.drain()
    assert not is_readable(events)


def test_lost_events_count_as_a_module(events: ModuleEvents, sender: socket.socket) -> None:
    for _ in range(3_000):
        send(sender, "change", "/devices/virtual/net/dummy0", "net", PADDING="x" * 1000)
    assert events.drain()
    # The socket works on.
    assert not events.drain()
    send(sender, "add", "/module/zram", "module")
    assert events.drain()


def test_without_a_descriptor_the_error_names_the_call() -> None:
    code = (
        "import resource; from batchprobe.kernel.module_events import ModuleEvents\n"
        "ModuleEvents().close()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: ModuleEvents()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == (
        "KernelError socket(NETLINK_KOBJECT_UEVENT): Too many open files (EMFILE)\n"
    )


def test_nothing_stays_open() -> None:
    ModuleEvents().close()
    before = open_files()
    events = ModuleEvents()
    events.close()
    events.close()
    assert open_files() == before
