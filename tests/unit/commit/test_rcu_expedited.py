# SPDX-License-Identifier: Apache-2.0
"""RcuExpedited on files in a temporary directory, and a Barrier that cannot use it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchprobe.commit import rcu_expedited
from batchprobe.commit.barrier import Barrier, BarrierMode
from batchprobe.commit.rcu_expedited import RcuExpedited
from batchprobe.errors import KernelError
from batchprobe.sys.process import Owner


class Setting:
    """An RcuExpedited on files of a test."""

    def __init__(self, folder: Path, original: str) -> None:
        self.file = folder / "setting"
        self.file.write_text(f"{original}\n")
        self.shared = RcuExpedited(folder / "state", self.file)

    @property
    def value(self) -> str:
        return self.file.read_text().strip()


@pytest.fixture
def someone() -> Iterator[Owner]:
    """Another living process."""
    with subprocess.Popen(("sleep", "1000")) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        start = int(stat.rpartition(")")[2].split()[19])
        yield Owner(process.pid, start, Owner.this_process().namespace)
        process.kill()


@pytest.mark.parametrize("original", ["0", "1"])
def test_the_first_holder_sets_it_and_the_last_restores_it(
    tmp_path: Path, original: str, someone: Owner
) -> None:
    setting, me = Setting(tmp_path, original), Owner.this_process()
    for order in ([me, someone], [someone, me], [me, me]):
        for owner in order:
            setting.shared.take(owner)
            assert setting.value == "1"
        setting.shared.give_back(order[0])
        assert setting.value == "1"
        setting.shared.give_back(order[1])
        assert setting.value == original
    assert not setting.shared.restore_for_dead()


def test_dead_holders_do_not_count(tmp_path: Path) -> None:
    setting, me = Setting(tmp_path, "0"), Owner.this_process()
    dead = Owner(me.pid, me.start + 1, me.namespace)
    setting.shared.take(dead)
    assert setting.shared.restore_for_dead()
    assert setting.value == "0"

    setting.shared.take(me)
    setting.shared.take(dead)
    assert setting.shared.restore_for_dead()
    assert setting.value == "1"
    setting.shared.give_back(me)
    assert setting.value == "0"


def test_a_value_written_meanwhile_is_kept(tmp_path: Path) -> None:
    setting, me = Setting(tmp_path, "1"), Owner.this_process()
    setting.shared.take(me)
    setting.file.write_text("0")
    setting.shared.give_back(me)
    assert setting.value == "0"


@pytest.mark.parametrize("original", ["0", "1"])
@pytest.mark.parametrize("method", ["take", "give_back"])
def test_it_can_be_restored_after_a_kill_at_any_step(
    tmp_path: Path, method: str, original: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill releases the lock too, so the files alone must be enough."""
    setting, me = Setting(tmp_path, original), Owner.this_process()
    dead = Owner(me.pid, me.start + 1, me.namespace)
    act = getattr(setting.shared, method)
    steps = 0
    while True:
        if method == "give_back":
            setting.shared.take(dead)
        killed = _killed_before(steps, lambda: act(dead), monkeypatch)
        setting.shared.restore_for_dead()
        assert setting.value == original, f"killed before write {steps}"
        # Nothing of it misleads the next holder.
        setting.shared.take(me)
        assert setting.value == "1"
        setting.shared.give_back(me)
        assert setting.value == original
        if not killed:
            break
        steps += 1
    assert steps == 2


def _killed_before(step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Stop `act` before its write number `step`, from 0; whether it came to that write."""

    class KilledError(BaseException):
        pass

    writes = 0

    def counted(write: Callable[..., object]) -> Callable[..., object]:
        def checked(*arguments: object) -> object:
            nonlocal writes
            if writes == step:
                raise KilledError
            writes += 1
            return write(*arguments)

        return checked

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", counted(os.pwrite))
        patch.setattr(os, "ftruncate", counted(os.ftruncate))
        patch.setattr(rcu_expedited, "_write", counted(rcu_expedited._write))
        try:
            act()
        except KilledError:
            return True
    return False


def test_give_back_without_take_changes_nothing(tmp_path: Path) -> None:
    setting = Setting(tmp_path, "0")
    setting.shared.give_back(Owner.this_process())
    assert setting.value == "0"
    assert not setting.shared.restore_for_dead()


def test_a_process_that_cannot_set_it_is_no_holder(tmp_path: Path) -> None:
    setting, me = Setting(tmp_path, "0"), Owner.this_process()
    setting.file.unlink()
    setting.file.mkdir()
    with pytest.raises(OSError, match="setting"):
        setting.shared.take(me)
    setting.file.rmdir()
    setting.file.write_text("0")
    setting.shared.take(Owner(me.pid, me.start + 1, me.namespace))
    assert setting.value == "1"
    assert setting.shared.restore_for_dead()
    assert setting.value == "0"


def test_a_holder_that_cannot_restore_it_stays_a_holder(tmp_path: Path) -> None:
    setting, me = Setting(tmp_path, "0"), Owner.this_process()
    setting.shared.take(me)
    setting.file.unlink()
    for _ in range(2):
        with pytest.raises(OSError, match="setting"):
            setting.shared.give_back(me)
    setting.file.write_text("1")
    setting.shared.give_back(me)
    assert setting.value == "0"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"original": "1"}', b'{"holders": 3}', b"\xff"]
)
def test_an_unreadable_record_counts_as_empty(tmp_path: Path, text: bytes) -> None:
    setting, me = Setting(tmp_path, "0"), Owner.this_process()
    (tmp_path / "state").mkdir()
    (tmp_path / "state/rcu_expedited").write_bytes(text)
    assert not setting.shared.restore_for_dead()
    setting.shared.take(me)
    assert setting.value == "1"
    setting.shared.give_back(me)
    assert setting.value == "0"


def test_without_a_guard_waits_are_normal() -> None:
    """A guardian that cannot start must not prevent the removal of probes."""

    def guard() -> None:
        raise KernelError("reading kprobe_events", errno.EACCES)

    barrier = Barrier(BarrierMode.EXPEDITED, Owner.this_process(), guard=guard)
    assert barrier.expedites
    with barrier.expedited_grace_periods():
        assert not barrier.expedites
    assert "kprobe_events" in barrier.note
