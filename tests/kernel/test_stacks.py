# SPDX-License-Identifier: Apache-2.0
"""Stacks of callers: each call has one, and they lead to the function that was called."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from helpers.command import run, run_script
from helpers.machine import ABIS, BCC_COMPILES, MACHINE, kinds

from batchprobe import Probe, Session
from batchprobe.actions import stacks as stacks_module
from batchprobe.actions.stacks import CallStack, CallTimeStacks, Stacks
from batchprobe.filters.pid import Pid
from batchprobe.functions.addresses import KernelAddresses
from batchprobe.functions.kernel_symbols import KernelSymbols

FALLOCATE = "vfs_fallocate"

USER_STACKS = """
import os
from bcc import BPF
from batchprobe import Session
from batchprobe.actions.stacks import Stacks
from batchprobe.filters.pid import Pid
with Session(action=Stacks(user=True), filters=[Pid(os.getpid())]) as session:
    (probe,) = session.attach(["vfs_fallocate"])
    os.posix_fallocate(os.memfd_create("x"), 0, 4096)
    session.detach_all()
(stack,) = probe.value
print(stack.pid, os.getpid(), stack.comm, *(BPF.sym(ip, stack.pid).decode() for ip in stack.user))
"""


@pytest.fixture(params=ABIS)
def abi(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("stacks")
    yield fd
    os.close(fd)


def names(stack: CallStack) -> Sequence[str]:
    addresses = KernelAddresses(KernelSymbols().table())
    return [
        addresses.name(ip, is_return=depth > 0).partition("+")[0]
        for depth, ip in enumerate(stack.kernel)
    ]


def calls(probe: Probe) -> int:
    total: int = probe.value.total.calls
    return total


def test_a_stack_begins_at_the_function_and_ends_at_the_system_call(abi: str, file: int) -> None:
    with Session(action=Stacks(), abi=abi, filters=[Pid(os.getpid())]) as session:
        (probe,) = session.attach([FALLOCATE])
        for _ in range(9):
            os.posix_fallocate(file, 0, 4096)
        report = session.detach_all()
    assert report.barriers == 1
    (stack,) = probe.value
    assert names(stack)[0] == FALLOCATE
    assert len(stack.kernel) > 1
    # Unwinders that follow frame pointers miss the callers of a function that has no frame yet.
    if MACHINE == "x86_64":
        assert any("fallocate" in name and name != FALLOCATE for name in names(stack)[1:])
    assert calls(probe) == probe.count == 9
    assert not stack.user
    assert session.lost() == 0


def test_each_call_has_a_stack(abi: str) -> None:
    """Whoever calls these, from wherever."""
    with Session(action=Stacks(), abi=abi) as session:
        probes = session.attach(["vfs_*"])
        for _ in range(20):
            Path("/proc/self/maps").read_bytes()
            list(Path("/etc").iterdir())
        session.detach_all()
        lost = session.lost()
    assert sum(map(calls, probes)) + (lost or 0) == sum(probe.count for probe in probes)
    assert sum(len(probe.value) for probe in probes) > 3
    # None of these functions is called by nobody.
    if MACHINE == "x86_64":
        assert all(len(stack.kernel) > 1 for probe in probes for stack in probe.value)


def test_no_room_is_told(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks_module, "_MAX_STACKS", 1)
    with Session(action=Stacks(), filters=[Pid(os.getpid())]) as session:
        probes = session.attach([FALLOCATE, "vfs_statx"])
        for _ in range(5):
            os.posix_fallocate(file, 0, 4096)
            Path("/").lstat()
        session.detach_all()
        lost = session.lost()
    assert lost
    assert sum(map(calls, probes)) + lost == sum(probe.count for probe in probes)


@pytest.mark.skipif("%return" not in kinds("auto"), reason="this kernel refuses return probes")
def test_stacks_have_the_time_of_their_calls(abi: str) -> None:
    with Session(action=CallTimeStacks(), abi=abi, filters=[Pid(os.getpid())]) as session:
        (probe,) = session.attach(["hrtimer_nanosleep"])
        for _ in range(5):
            time.sleep(0.05)
        session.detach_all()
    (one,) = probe.value.values()
    assert one.calls == 5
    # The clock of a sleep starts before the function does.
    assert 5 * 45e6 <= one.time_ns < 5 * 500e6


@pytest.mark.skipif("%return" not in kinds("auto"), reason="this kernel refuses return probes")
def test_only_failing_calls_count_if_that_is_asked_for(abi: str) -> None:
    action = CallTimeStacks(only_errors=True)
    with Session(action=action, abi=abi, filters=[Pid(os.getpid())]) as session:
        (probe,) = session.attach(["do_sys_openat2"])
        for _ in range(6):
            os.close(os.open("/", os.O_RDONLY))
        for _ in range(4):
            with pytest.raises(FileNotFoundError):
                os.open("/nonexistent", os.O_RDONLY)
        session.detach_all()
    assert {stack.error: one.calls for stack, one in probe.value.items()} == {"ENOENT": 4}


@pytest.mark.skipif(not BCC_COMPILES, reason="no working bcc here, which names them")
@pytest.mark.skipif(MACHINE != "x86_64", reason="the C library has no frame pointers everywhere")
def test_user_frames_have_names() -> None:
    """In a process of its own, because bcc keeps files of the processes it looks at open."""
    done = run_script(USER_STACKS)
    pid, own_pid, comm, *names = done.stdout.split()
    assert pid == own_pid
    assert comm.startswith("python")
    assert any("fallocate" in name for name in names), done


@pytest.mark.one_kernel
@pytest.mark.parametrize("suffix", ["svg", "folded", "json"])
def test_the_command_writes_what_the_file_is_called(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out.{suffix}"
    code = 'import os; fd = os.memfd_create("x"); os.posix_fallocate(fd, 0, 4096)'
    done = run("stacks", FALLOCATE, "-o", file, "-c", f"python3 -I -S -c '{code}'")
    assert done.status == 0, done
    text = file.read_text()
    assert FALLOCATE in text
    assert {"svg": "<svg", "folded": f"{FALLOCATE}_[k] 1", "json": '"$schema"'}[suffix] in text


@pytest.mark.one_kernel
def test_the_command_lists_stacks() -> None:
    code = 'import os; fd = os.memfd_create("x"); os.posix_fallocate(fd, 0, 4096)'
    done = run("stacks", FALLOCATE, "-c", f"python3 -I -S -c '{code}'")
    first, frame, *_ = done.stdout.splitlines()
    assert first == "1 call, 100.0 %"
    assert frame.strip().startswith(f"{FALLOCATE}+0x")
    assert MACHINE != "x86_64" or "sys_fallocate" in done.stdout
