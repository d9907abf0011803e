# SPDX-License-Identifier: Apache-2.0
"""When the command gives hits in modules to their probes."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from batchprobe.cli.claims import ClaimTimes
from batchprobe.errors import KernelError
from batchprobe.kernel.module_events import ModuleEvents
from batchprobe.probe import Probe

NETLINK_KOBJECT_UEVENT = 15
ABSENT = "no_such_module"


def present() -> str:
    """A name that has a folder in /sys/module, as a loaded module does."""
    return min(folder.name for folder in Path("/sys/module").iterdir())


def probe(module: str, *, address: int | None = None, has_unclaimed: bool = True) -> Probe:
    """What is read of a probe."""
    holder = SimpleNamespace(maps=SimpleNamespace(has_unclaimed=has_unclaimed))
    target = SimpleNamespace(module=module)
    return cast(Probe, SimpleNamespace(target=target, address=address, holder=holder))


def announce(action: str) -> None:
    text = f"{action}@/module/zram\0ACTION={action}\0DEVPATH=/module/zram\0SUBSYSTEM=module\0"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sender:
        try:
            sender.sendto(text.encode(), (0, 1))
        except PermissionError:
            pytest.skip("only root may send uevents")
        except ConnectionRefusedError:
            return


def past_the_import(times: ClaimTimes) -> float:
    """Make claims, each when it is due, until nothing is left to try."""
    now = 0.0
    while not times.descriptors and not times._gave_up:
        assert times.due is not None
        now = times.due
        assert times.is_due(now)
        times.claimed(now)
        time.sleep(0.01)
    return now


def test_without_probes_in_modules_no_claim_is_due() -> None:
    with ClaimTimes([probe(""), probe("zram", has_unclaimed=False)]) as times:
        assert times.due is None
        assert not times.is_due(time.monotonic() + 100)
        assert times.descriptors == []


def test_the_first_claim_is_due_after_a_second() -> None:
    before = time.monotonic()
    with ClaimTimes([probe(ABSENT)]) as times:
        assert times.due is not None
        assert before + 1 <= times.due <= time.monotonic() + 1
        assert not times.is_due(before)
        # Nothing is imported and opened for a run that is shorter.
        assert times.descriptors == []


def test_nothing_is_due_until_a_module_comes() -> None:
    with ClaimTimes([probe(ABSENT)]) as times:
        now = past_the_import(times)
        assert times.due is None
        assert not times.is_due(now + 100)
        (fd,) = times.descriptors
        announce("add")
        assert select.select([fd], [], [], 0)[0] == [fd]
        assert times.is_due(now + 100)
        times.claimed(now + 100)
        # It was another one.
        assert times.due is None
        assert not times.is_due(now + 200)


def test_while_a_late_module_is_loaded_a_claim_is_due_every_second() -> None:
    with ClaimTimes([probe(present()), probe(ABSENT)]) as times:
        now = past_the_import(times)
        assert times.due == now + 1
        times.claimed(now + 1)
        assert times.due == now + 2


def test_a_module_that_was_there_at_the_attach_is_late_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ClaimTimes([probe(present(), address=0x1000)]) as times:
        now = past_the_import(times)
        assert times.due is None
        announce("remove")
        announce("add")
        assert times.is_due(now + 1)
        times.claimed(now + 1)
        # It was another one.
        assert times.due is None
        announce("add")
        assert times.is_due(now + 1)
        # The new folder of a module has another number.
        monkeypatch.setattr("batchprobe.cli.claims._folder", lambda _name: 1)
        times.claimed(now + 1)
        assert times.due == now + 2


def test_without_announcements_a_claim_is_due_every_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> ModuleEvents:
        raise KernelError("socket(NETLINK_KOBJECT_UEVENT)", errno.EPERM)

    monkeypatch.setattr("batchprobe.kernel.module_events.ModuleEvents", refuse)
    said: list[str] = []
    with ClaimTimes([probe(ABSENT)], said.append) as times:
        now = past_the_import(times)
        assert times.descriptors == []
        assert times.due == now + 1
        times.claimed(now + 1)
        assert times.due == now + 2
    (sentence,) = said
    assert "looked for every second" in sentence
    assert sentence.endswith("(EPERM)")


def test_a_socket_that_fails_later_is_given_up() -> None:
    said: list[str] = []
    with ClaimTimes([probe(ABSENT)], said.append) as times:
        now = past_the_import(times)
        (fd,) = times.descriptors
        # Something else is there now.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, fd)
        os.close(null)
        assert times.is_due(now)
        times.claimed(now)
        assert times.due == now + 1
        assert times.descriptors == []
    assert len(said) == 1
