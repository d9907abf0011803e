# SPDX-License-Identifier: Apache-2.0
"""Programs that the caller compiled with bcc run on the hits of batchprobe's probes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.machine import ABIS, BCC_COMPILES, PLACES, RELEASE
from helpers.workers import Worker

from batchprobe import Action, NothingAttachedError, ProbeMaps, Reader, Session
from batchprobe.actions.count import HitsReader

pytestmark = pytest.mark.skipif(not BCC_COMPILES, reason="no working bcc here")

SID, PGID = "syscall:getsid", "syscall:getpgid"

# Without the kernel's headers, some of which clang cannot read on ppc64el.
TEXT = b"""
BPF_ARRAY(runs, u64, 8);
BPF_HASH(functions, u64, u64);

int first(struct pt_regs *ctx) { runs.increment(0); return 0; }
int second(struct pt_regs *ctx) { runs.increment(1); return 0; }
int returned(struct pt_regs *ctx) { runs.increment(2); return 0; }
"""
WHICH = b"""
int which(struct pt_regs *ctx)
{
    functions.increment(bpf_get_func_ip(ctx));
    return 0;
}
"""
TRACEPOINT = b"""
int on_tracepoint(void *ctx) { return 0; }
"""


@pytest.fixture(scope="module")
def bcc() -> Iterator[Any]:
    """One compilation for all tests."""
    from bcc import BPF  # noqa: PLC0415  (the distribution's; absent on some architectures)

    b = BPF(text=TEXT + (WHICH if RELEASE >= (5, 15) else b"") + TRACEPOINT)
    yield b
    b.cleanup()


@pytest.fixture
def programs(bcc: Any) -> Iterator[Any]:
    """Loads kprobe programs by name, and unloads them after the test."""

    def load(name: str, kind: int | None = None) -> Any:
        return bcc.load_func(name.encode(), bcc.KPROBE if kind is None else kind)

    yield load
    while bcc.funcs:
        os.close(bcc.funcs.popitem()[1].fd)
    bcc[b"runs"].clear()
    bcc[b"functions"].clear()


def runs(bcc: Any) -> list[int]:
    """How often `first`, `second` and `returned` ran since the last look."""
    counts = [bcc[b"runs"][at].value for at in range(3)]
    bcc[b"runs"].clear()
    return counts


@pytest.mark.parametrize("abi", ABIS)
def test_it_runs_on_each_hit_until_the_commit(
    abi: str, bcc: Any, programs: Any, workers: list[Worker]
) -> None:
    with Session(abi=abi) as session:
        sid, pgid = session.attach([SID, PGID], program=programs("first"))
        workers[0].call(["getsid", "getpgid"], 500)
        assert (sid.count, pgid.count) == (500, 500)
        assert runs(bcc) == [1000, 0, 0]
        report = session.detach(sid, commit=True)
        assert report is not None
        assert report.barriers == 1
        workers[1].call(["getsid", "getpgid"], 300)
        assert (sid.count, pgid.count) == (500, 800)
        assert runs(bcc) == [300, 0, 0]
        session.detach_all()
        workers[0].call(["getsid", "getpgid"], 100)
        assert runs(bcc) == [0, 0, 0]
        assert session.missed() in {0, None}


AT_ENTRY = pytest.mark.skipif("entry" not in PLACES, reason="no probe at an entry here")


@AT_ENTRY
@pytest.mark.parametrize("abi", ABIS)
def test_several_programs_in_one_session(
    abi: str, bcc: Any, programs: Any, workers: list[Worker]
) -> None:
    first, second = programs("first"), programs("second")
    with Session(abi=abi) as session:
        # In one kernel object, by entry; and another one on the same function.
        session.attach([SID, f"{PGID}, syscall:getpriority"], program=[first, second])
        session.attach([SID], program=second)
        returns = session.attach([f"{SID}%return"], program=programs("returned"))
        workers[0].call(["getsid", "getpgid", "getpriority"], 200)
        assert runs(bcc) == [200, 600, 200]
        session.detach(returns, commit=True)
        workers[0].call(["getsid"], 50)
        assert runs(bcc) == [50, 50, 0]
        # Plain counting goes on beside them.
        (plain,) = session.attach([SID])
        workers[0].call(["getsid"], 10)
        assert plain.count == 10


@AT_ENTRY
@pytest.mark.skipif(RELEASE < (5, 15), reason="bpf_get_func_ip() is of Linux 5.15")
@pytest.mark.parametrize("abi", ABIS)
def test_it_may_ask_which_function_was_hit(
    abi: str, bcc: Any, programs: Any, workers: list[Worker]
) -> None:
    with Session(abi=abi) as session:
        found = session.attach([SID, PGID], program=programs("which"))
        workers[0].call(["getsid", "getpgid"], 100)
        assert {probe.placement for probe in found} == {"entry"}
        counts = {bcc.ksym(key.value): value.value for key, value in bcc[b"functions"].items()}
        # A function may have several names.
        names = [bcc.ksym(probe.address) for probe in found]
    assert counts == dict.fromkeys(names, 100)


def test_what_cannot_be_called_is_refused_with_the_reason(bcc: Any, programs: Any) -> None:
    other = programs("on_tracepoint", bcc.TRACEPOINT)
    with Session() as session:
        with pytest.raises(NothingAttachedError):
            session.attach([SID], program=other)
        assert "BPF_PROG_TYPE_KPROBE" in session.skipped[0].message
    with Session() as session:
        # The others are attached.
        found = session.attach([SID, PGID], program=[other, programs("first")])
        assert [probe.label for probe in found] == [PGID]
        assert [skipped.entry for skipped in session.skipped] == [SID]


def test_a_bare_descriptor_goes_to_another_object_than_a_link(
    bcc: Any, programs: Any, workers: list[Worker]
) -> None:
    fd = programs("first").fd
    with Session() as session:
        (probe,) = session.attach([SID], program=fd)
        assert probe.abi != "multi"
        workers[0].call(["getsid"], 100)
        assert (probe.count, runs(bcc)[0]) == (100, 100)
    if "multi" in ABIS:
        with Session(abi="multi") as session:
            with pytest.raises(NothingAttachedError):
                session.attach([SID], program=fd)
            assert "needs a copy" in session.skipped[0].message


class Other(Action):
    """Not Count."""

    name = "other"
    unit = "hits"

    def reader(self, maps: ProbeMaps) -> Reader:
        return HitsReader()


def test_wrong_arguments(programs: Any) -> None:
    with Session() as session:
        with pytest.raises(TypeError, match="load_func"):
            session.attach([SID], program="first")
        with pytest.raises(TypeError, match="load_func"):
            session.attach([SID], program=object())
        with pytest.raises(ValueError, match="2 programs for 1 entries"):
            session.attach([SID], program=[programs("first"), programs("second")])
    with Session(action=Other()) as session, pytest.raises(ValueError, match="other"):
        session.attach([SID], program=programs("first"))
