# SPDX-License-Identifier: Apache-2.0
"""A session that is misused raises an error; nothing is miscounted or forgotten."""

from __future__ import annotations

import os

import pytest
from helpers.command import run_script
from helpers.machine import ABIS, kernel_state
from helpers.workers import Worker

from batchprobe import CommitReport, NotAttachedError, ProbeState, Session, SessionError

PAIR = ["syscall:getsid", "syscall:getpgid"]


@pytest.mark.parametrize("abi", ABIS)
def test_a_detached_probe_says_so_and_keeps_its_count(abi: str, workers: list[Worker]) -> None:
    with Session(abi=abi) as session:
        gone, stays = session.attach(PAIR)
        workers[0].call(["getsid", "getpgid"], 5)
        session.detach(gone)
        assert "queued" in repr(gone)
        assert gone in session.probes
        assert gone not in session.attached
        session.commit()
        assert session.probes == [stays]
        workers[0].call(["getsid", "getpgid"], 5)
        assert (gone.count, gone.state, "detached" in repr(gone)) == (5, ProbeState.DETACHED, True)
        with pytest.raises(NotAttachedError, match=r"syscall:getsid is not attached: it is deta"):
            session.detach(gone)
        assert session.counts() == {stays: 10}
    assert [probe.count for probe in (gone, stays)] == [5, 10]


def test_a_probe_of_another_session_is_not_ours(workers: list[Worker]) -> None:
    with Session() as ours, Session() as theirs:
        mine = ours.attach(PAIR)
        foreign = theirs.attach(PAIR)
        for wrong in (foreign[0], [mine[0], foreign[0]]):
            with pytest.raises(NotAttachedError, match="another session"):
                ours.detach(wrong)
        assert ours.commit() == CommitReport()
        workers[0].call(["getsid", "getpgid"], 3)
        assert [probe.count for probe in (*mine, *foreign)] == [3] * 4


def test_a_closed_session_attaches_nothing() -> None:
    session = Session()
    session.attach(PAIR)
    session.close()
    before = kernel_state()
    with pytest.raises(SessionError, match="closed"):
        session.attach(PAIR)
    assert kernel_state() == before
    assert session.commit() == session.close() == CommitReport()


def test_a_session_closed_during_its_attach_attaches_nothing() -> None:
    before = kernel_state()

    def close(stage: str, _done: int, _total: int) -> None:
        if stage == "attach":
            session.close()

    session = Session(abi="event", progress=close)
    with pytest.raises(SessionError, match="closed"):
        session.attach(PAIR)
    assert kernel_state() == before
    assert not session.probes


def test_inside_a_commit_only_detach_may_be_called() -> None:
    with Session() as session:
        first, second, third = session.attach([*PAIR, "syscall:sched_yield"])
        refused: list[SessionError] = []

        def final() -> None:
            for call in (
                session.commit,
                session.detach_all,
                session.close,
                lambda: session.attach(PAIR),
                lambda: session.detach(second, commit=True),
            ):
                try:
                    call()
                except SessionError as error:
                    refused.append(error)
            session.detach(third)

        session.detach(first)
        assert session.commit(final).probes == 1
        assert len(refused) == 5
        states = [probe.state for probe in (first, second, third)]
        assert states == [ProbeState.DETACHED, ProbeState.ATTACHED, ProbeState.QUEUED]
        assert session.commit().probes == 1


FORKING = """
import os, sys, time
from batchprobe import ProbeState, Session, SessionError

def refused(call):
    try:
        call()
    except SessionError as error:
        return str(os.getppid()) in str(error)
    return False

with Session(abi={abi!r}) as session:
    probe, other = session.attach(["syscall:getsid", "syscall:getpgid"])
    os.getsid(0)
    child = os.fork()
    if not child:
        assert refused(lambda: session.detach(probe))
        assert refused(session.commit)
        assert refused(session.detach_all)
        assert refused(session.counts)
        assert refused(lambda: session.attach(["vfs_read"]))
        assert refused(lambda: probe.count)
        {end}
    # The child keeps nothing of ours alive, and takes nothing away when it ends.
    {before_end}
    os.getsid(0)
    assert probe.count == 2, probe.count
    report = session.close()
    {after}
    print(probe.count, report.dirty, report.failed)
"""
ENDS = {
    # The interpreter exits, which closes sessions.
    "exit": ("sys.exit(3)", "assert os.waitpid(child, 0)[1] >> 8 == 3", ""),
    # The child leaves the block, which closes the session too, and then exits.
    "block": ("raise SystemExit(3)", "assert os.waitpid(child, 0)[1] >> 8 == 3", ""),
    # The child outlives the session.
    "late": ("time.sleep(1000)", "", "os.kill(child, 9); os.waitpid(child, 0)"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("abi", ABIS)
def test_a_forked_child_has_no_part_in_it(abi: str, end: str) -> None:
    child, before, after = ENDS[end]
    program = FORKING.format(abi=abi, end=child, before_end=before, after=after)
    done = run_script(program, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert (done.status, done.stdout) == (0, "2 2 ()\n"), done
