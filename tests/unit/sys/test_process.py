"""Who owns what, and who is dead for certain; the shared knob on files of our own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.commit import barrier
from batchprobe.commit.barrier import ExpeditedKnob
from batchprobe.errors import KernelError
from batchprobe.sys.process import Owner

NUMBERS = st.integers(min_value=0, max_value=2**64)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_group_names_its_owner(pid: int, start: int, namespace: int) -> None:
    owner = Owner(pid, start, namespace)
    assert Owner.from_group(owner.group) == owner


@pytest.mark.parametrize(
    "group",
    ["kprobes", "batchprobe", "batchprobe_1_2", "batchprobe_1_2_3_4", "xbatchprobe_1_2_3",
     "batchprobe_1_2_3x", "batchprobe_-1_2_3", "batchprobe_1_2_x", ""],
)  # fmt: skip
def test_groups_of_others(group: str) -> None:
    assert Owner.from_group(group) is None


@pytest.fixture
def other() -> Iterator[tuple[Owner, subprocess.Popen[bytes]]]:
    """Another living process."""
    tell = (
        "from batchprobe.sys.process import Owner; print(Owner.this_process().group, flush=True);"
    )
    with subprocess.Popen(
        (sys.executable, "-c", f"{tell} input()"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        if process.stdout is None:
            raise AssertionError("it is a pipe")
        owner = Owner.from_group(process.stdout.readline().decode().strip())
        assert owner is not None
        yield owner, process
        if process.returncode is None:
            process.kill()


def test_the_living_and_the_dead(other: tuple[Owner, subprocess.Popen[bytes]]) -> None:
    owner, process = other
    assert owner.pid == process.pid
    assert not Owner.this_process().is_dead
    assert not owner.is_dead
    # Its number went to another process, which started later.
    assert owner._replace(start=owner.start + 1).is_dead
    # Of another PID namespace only the initial one knows everybody; here there is nobody in it.
    elsewhere = owner._replace(namespace=owner.namespace + 1)
    assert elsewhere.is_dead == (owner.namespace == 0xEFFFFFFC)
    process.kill()
    # Until it is waited for it is a zombie: nothing it held is there any more.
    zombie = Path(f"/proc/{owner.pid}/stat")
    while zombie.read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert owner.is_dead
    process.wait()
    assert owner.is_dead


class Knob:
    """An ExpeditedKnob on files of our own."""

    def __init__(self, folder: Path, original: str) -> None:
        self.file = folder / "knob"
        self.file.write_text(f"{original}\n")
        self.shared = ExpeditedKnob(folder / "state", self.file)

    @property
    def value(self) -> str:
        return self.file.read_text().strip()


@pytest.mark.parametrize("original", ["0", "1"])
def test_the_first_sets_the_knob_and_the_last_restores_it(
    tmp_path: Path, original: str, other: tuple[Owner, subprocess.Popen[bytes]]
) -> None:
    knob, me, (someone, _) = Knob(tmp_path, original), Owner.this_process(), other
    for order in ([me, someone], [someone, me], [me, me]):
        for owner in order:
            knob.shared.take(owner)
            assert knob.value == "1"
        knob.shared.give_back(order[0])
        assert knob.value == "1"
        knob.shared.give_back(order[1])
        assert knob.value == original
    assert not knob.shared.restore_for_dead()


def test_the_dead_hold_nothing(tmp_path: Path) -> None:
    knob, me = Knob(tmp_path, "0"), Owner.this_process()
    dead = me._replace(start=me.start + 1)
    knob.shared.take(dead)
    assert knob.shared.restore_for_dead()
    assert knob.value == "0"

    knob.shared.take(me)
    knob.shared.take(dead)
    assert knob.shared.restore_for_dead()
    assert knob.value == "1"
    knob.shared.give_back(me)
    assert knob.value == "0"


def test_a_value_set_by_somebody_meanwhile_stays(tmp_path: Path) -> None:
    knob, me = Knob(tmp_path, "1"), Owner.this_process()
    knob.shared.take(me)
    knob.file.write_text("0")
    knob.shared.give_back(me)
    assert knob.value == "0"


@pytest.mark.parametrize("original", ["0", "1"])
@pytest.mark.parametrize("what", ["take", "give_back"])
def test_killed_at_any_step_it_can_be_restored(
    tmp_path: Path, what: str, original: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill takes the lock away too: what is in the files then must do."""
    knob, me = Knob(tmp_path, original), Owner.this_process()
    dead = me._replace(start=me.start + 1)
    act = getattr(knob.shared, what)
    steps = 0
    while True:
        if what == "give_back":
            knob.shared.take(dead)
        killed = _killed_before(steps, lambda: act(dead), monkeypatch)
        knob.shared.restore_for_dead()
        assert knob.value == original, f"killed before write {steps}"
        # No trace of it misleads the next one.
        knob.shared.take(me)
        assert knob.value == "1"
        knob.shared.give_back(me)
        assert knob.value == original
        if not killed:
            break
        steps += 1
    assert steps == 2


def _killed_before(step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Stop `act` before its write of this number; whether it got so far."""

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
        patch.setattr(barrier, "_write", counted(barrier._write))
        try:
            act()
        except KilledError:
            return True
    return False


def test_giving_back_what_was_not_taken(tmp_path: Path) -> None:
    knob = Knob(tmp_path, "0")
    knob.shared.give_back(Owner.this_process())
    assert knob.value == "0"
    assert not knob.shared.restore_for_dead()


def test_who_cannot_set_the_knob_does_not_hold_it(tmp_path: Path) -> None:
    knob, me = Knob(tmp_path, "0"), Owner.this_process()
    knob.file.unlink()
    knob.file.mkdir()
    with pytest.raises(OSError, match="knob"):
        knob.shared.take(me)
    knob.file.rmdir()
    knob.file.write_text("0")
    knob.shared.take(me._replace(start=me.start + 1))
    assert knob.value == "1"
    assert knob.shared.restore_for_dead()
    assert knob.value == "0"


def test_who_cannot_restore_the_knob_goes_on_holding_it(tmp_path: Path) -> None:
    knob, me = Knob(tmp_path, "0"), Owner.this_process()
    knob.shared.take(me)
    knob.file.unlink()
    for _ in range(2):
        with pytest.raises(OSError, match="knob"):
            knob.shared.give_back(me)
    knob.file.write_text("1")
    knob.shared.give_back(me)
    assert knob.value == "0"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"original": "1"}', b'{"holders": 3}', b"\xff"]
)
def test_a_state_that_is_not_ours_tells_nothing(tmp_path: Path, text: bytes) -> None:
    knob, me = Knob(tmp_path, "0"), Owner.this_process()
    (tmp_path / "state").mkdir()
    (tmp_path / "state/rcu_expedited").write_bytes(text)
    assert not knob.shared.restore_for_dead()
    knob.shared.take(me)
    assert knob.value == "1"
    knob.shared.give_back(me)
    assert knob.value == "0"


def test_what_cannot_be_guarded_is_not_expedited() -> None:
    """Whoever takes probes off must not be stopped by it."""

    def guard() -> None:
        raise KernelError("reading kprobe_events", errno.EACCES)

    waits = barrier.Barrier(barrier.BarrierMode.EXPEDITED, Owner.this_process(), guard=guard)
    assert waits.expedites
    with waits.short_waits():
        assert not waits.expedites
    assert "kprobe_events" in waits.note
