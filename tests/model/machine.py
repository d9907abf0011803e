# SPDX-License-Identifier: Apache-2.0
"""The state machine: calls a session's methods in any order and compares with the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchprobe.commit.queue import CommitReport
from batchprobe.errors import NotAttachedError, SessionError
from batchprobe.probe import ProbeState
from model.semantics import Model, ModelProbe, ModelSession, Outcome, Site

__all__ = ["AnyProbe", "AnySession", "Semantics", "World", "one_of"]

MOST_OPEN = 3
MOST_PROBES = 8
MOST_ATTACHED = 16

ThingT = TypeVar("ThingT")


def one_of(things: Iterable[ThingT]) -> st.SearchStrategy[ThingT]:
    return st.sampled_from(list(things))


def some(
    things: Sequence[ThingT], most: int | None = None, least: int = 1
) -> st.SearchStrategy[list[ThingT]]:
    return st.lists(st.sampled_from(things), unique=True, min_size=least, max_size=most)


def has_attached(session: ModelSession) -> bool:
    return bool(session.attached)


def has_work(session: ModelSession) -> bool:
    """Whether a commit has something to do."""
    return bool(session.queue or session.unreclaimed)


def was_used(session: ModelSession) -> bool:
    """Whether any of its probes was detached."""
    return len(session.attached) < len(session.probes)


class AnyProbe(Protocol):
    """The part of a probe that the machine reads."""

    @property
    def label(self) -> str: ...
    @property
    def state(self) -> ProbeState: ...
    @property
    def count(self) -> int: ...


class AnySession(AbstractContextManager["AnySession"], Protocol):
    """The methods of `batchprobe.Session` that the machine calls."""

    @property
    def probes(self) -> Sequence[Any]: ...
    @property
    def attached(self) -> Sequence[Any]: ...
    def counts(self) -> dict[Any, int]: ...
    def attach(self, entries: Iterable[str]) -> Sequence[AnyProbe]: ...
    def detach(self, probes: Any, *, commit: bool = False) -> CommitReport | None: ...
    def commit(self, on_final: Callable[[], None] | None = None) -> CommitReport: ...
    def batch(self) -> AbstractContextManager[object]: ...
    def detach_all(self, on_final: Callable[[], None] | None = None) -> CommitReport: ...
    def close(self) -> CommitReport: ...


class World(Protocol):
    """An environment for sessions: plain Python, or a kernel."""

    @property
    def calls(self) -> Sequence[str]:
        """The system calls that may be probed."""
        ...

    @property
    def options(self) -> Sequence[tuple[str, str]]:
        """The combinations of ABI and placement that a session may be created with."""
        ...

    @property
    def returns(self) -> bool:
        """Whether return probes work."""
        ...

    @property
    def most_sessions(self) -> int:
        """How many sessions one example may create."""
        ...

    def open(self, abi: str, placement: str, /) -> AnySession:
        """Create a session with one of `options`."""
        ...

    def abi(self, option: str) -> str:
        """The ABI that a session with this ABI option uses."""
        ...

    def stranger(self, probe: Any) -> AnyProbe:
        """A probe of the same target that was never attached."""
        ...

    def call(self, rounds: int) -> None:
        """Make each system call `rounds` times."""
        ...

    def barriers(self) -> int:
        """The number of barriers so far."""
        ...

    def compare(self, model: Model) -> None:
        """Assert that this world contains what the model contains."""
        ...

    def end(self) -> None:
        """Called when all sessions are closed: assert that nothing is left of them."""
        ...


class Semantics(RuleBasedStateMachine):
    """Draws a step, takes it in the world and in the model, and compares both."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model()
        self.open: dict[ModelSession, AnySession] = {}
        self.closed: dict[ModelSession, AnySession] = {}
        self.real: dict[ModelProbe, AnyProbe] = {}
        self.rounds = 0
        self.was_refused = False

    # -- state -----------------------------------------------------------------------

    @property
    def every(self) -> dict[ModelSession, AnySession]:
        return {**self.open, **self.closed}

    def those(self, which: Callable[[ModelSession], object]) -> list[ModelSession]:
        """The open sessions for which `which` is true."""
        return [session for session in self.open if which(session)]

    def reals(self, probes: Iterable[ModelProbe]) -> list[AnyProbe]:
        return [self.real[probe] for probe in probes]

    # -- checks ---------------------------------------------------------------------

    def commits(
        self,
        session: ModelSession,
        act: Callable[[], CommitReport | None],
        *,
        reports: bool = True,
        first: type[Exception] | None = None,
        last: type[Exception] | None = None,
    ) -> None:
        """Commit `session` in the model, and in the world by calling `act`.

        `first` is an error that `act` raises even if the reclaim raises one, `last` an error that
        the reclaim's hides.
        """
        before = self.world.barriers()
        worked = has_work(session)
        expected = session.commit()
        note(f"{expected}")
        if error := first or expected.raises or last:
            with pytest.raises(error) as raised:
                act()
            assert raised.type is error
        elif (report := act()) is not None:
            numbers = (report.probes, report.clean, report.dirty, report.barriers)
            assert Outcome(*numbers, failed=len(report.failed)) == expected
            assert worked or report == CommitReport()
        else:
            assert not reports
        assert self.world.barriers() - before == expected.barriers

    @invariant()
    def states_are_those_of_the_model(self) -> None:
        probes = self.model.probes
        assert {p: self.real[p].state for p in probes} == {p: p.state for p in probes}
        for session, real in self.every.items():
            assert list(real.probes) == self.reals(session.known)
            assert list(real.attached) == self.reals(session.attached)
        self.world.compare(self.model)

    @invariant()
    def attached_probes_count_every_call(self) -> None:
        if not self.real:
            return
        self.rounds += 1
        rounds = 1 + self.rounds % 3
        self.world.call(rounds)
        self.model.call(rounds)
        probes = self.model.probes
        counts = {probe: probe.count for probe in probes}
        assert {probe: self.real[probe].count for probe in probes} == counts
        for session, real in self.every.items():
            assert real.counts() == {self.real[p]: p.count for p in session.known}

    # -- steps ---------------------------------------------------------------------------

    def steps(self) -> dict[str, int]:
        """The steps by name, each with its weight; 0 if it is impossible now."""
        with_attached, with_work = self.those(has_attached), self.those(has_work)
        may_open = len(self.open) < MOST_OPEN and len(self.every) < self.world.most_sessions
        may_attach = self.open and sum(len(s.attached) for s in self.open) < MOST_ATTACHED
        return {
            "open_one_more": bool(may_open),
            "attach": 2 * bool(may_attach),
            "detach": 3 * bool(with_attached),
            "detach_what_is_not_attached": bool(self.real),
            "commit": 4 * bool(with_work),
            "commit_nothing": len(with_work) < len(self.every),
            "batch": 2 * bool(with_attached),
            "attach_to_a_closed_one": bool(self.closed) and not self.was_refused,
            "leave": bool(self.those(was_used)),
        }

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        # A single rule, because hypothesis disables about half of several rules in each example,
        # and an example on a kernel is too expensive to do little.
        steps = [name for name, weight in self.steps().items() for _ in range(weight)]
        getattr(self, data.draw(one_of(steps), label="step"))(data)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.open_one_more(data)

    def open_one_more(self, data: st.DataObject) -> None:
        option, placement = data.draw(one_of(self.world.options))
        session = self.model.open(self.world.abi(option), placement)
        self.open[session] = self.world.open(option, placement)
        self.attach_to(session, data)

    def attach(self, data: st.DataObject) -> None:
        self.attach_to(data.draw(one_of(self.open)), data)

    def attach_to(self, session: ModelSession, data: st.DataObject) -> None:
        choice = [(False,), (False, True), (True,)] if self.world.returns else [(False,)]
        kinds = data.draw(one_of(choice), label="kinds")
        every = [Site(call, kind) for call in self.world.calls for kind in kinds]
        # Otherwise most attachments would have one probe, and could never be clean.
        least = data.draw(one_of([1, 4]), label="least")
        sites = data.draw(some(every, MOST_PROBES, least))
        real = self.open[session].attach([str(site) for site in sites])
        assert [probe.label for probe in real] == [str(site) for site in sites]
        probes = self.model.attach(session, sites)
        self.real.update(zip(probes, real, strict=True))

    def detach(self, data: st.DataObject) -> None:
        commit = data.draw(one_of([False, False, True]), label="commit")
        session = data.draw(one_of(self.those(has_attached)))
        probes = data.draw(some(session.attached))
        parts = [part for a in session.attachments if len(part := a.attached) > 1]
        if parts:
            # Most, but not all, of one attachment: a link is replaced when half of it is gone.
            part = data.draw(one_of([[], *parts]), label="of one attachment")
            if part:
                probes = data.draw(some(part, len(part) - 1, len(part) // 2))
        wanted: Any = self.reals(probes)
        if len(wanted) == 1:
            (wanted,) = wanted
        session.detach(probes)
        if not commit:
            assert self.open[session].detach(wanted) is None
            return
        self.commits(session, lambda: self.open[session].detach(wanted, commit=True))

    def detach_what_is_not_attached(self, data: st.DataObject) -> None:
        """Queued, detached, of another session or none, or twice in one call: nothing changes."""
        session = data.draw(one_of(self.every))
        own = session.attached
        good = data.draw(some(own, 2)) if own else []
        others = [probe for probe in self.model.probes if probe not in own]
        kinds = ["stranger"] + ["other"] * bool(others) + ["twice"] * bool(own)
        kind = data.draw(one_of(kinds))
        if kind == "other":
            bad = self.reals(data.draw(some(others, 2)))
        elif kind == "twice":
            bad = self.reals(good[:1])
        else:
            bad = [self.world.stranger(next(iter(self.real.values())))]
        wanted = data.draw(st.permutations([*bad, *self.reals(good)]))
        commit = data.draw(st.booleans(), label="commit")
        before = self.world.barriers()
        with pytest.raises(NotAttachedError):
            self.every[session].detach(wanted, commit=commit)
        assert self.world.barriers() == before

    def commit(self, data: st.DataObject) -> None:
        """Nothing that `on_final` does prevents the reclaim."""
        session = data.draw(one_of(self.those(has_work)))
        real = self.open[session]
        does: dict[str, tuple[Callable[[], object], type[Exception] | None]] = {
            "nothing": (lambda: None, None),
            "fails": (lambda: 1 / 0, ZeroDivisionError),
            "commits": (real.commit, SessionError),
            "attaches": (lambda: real.attach([]), SessionError),
        }
        late = data.draw(some(session.attached)) if session.attached else []
        if late:
            # For the next commit.
            does["detaches"] = (lambda: real.detach(self.reals(late)), None)
        what = data.draw(one_of(does), label="on_final")
        act, error = does[what]
        gone = list(session.queue)
        finals: list[list[int]] = []

        def final() -> None:
            finals.append([probe.count for probe in self.reals(gone)])
            act()

        self.commits(session, lambda: real.commit(final), first=error)
        assert finals == [[probe.count for probe in gone]]
        if what == "detaches":
            session.detach(late)

    def commit_nothing(self, data: st.DataObject) -> None:
        """In an open session or a closed one."""
        session = data.draw(one_of(s for s in self.every if not has_work(s)))
        self.commits(session, self.every[session].commit)

    def batch(self, data: st.DataObject) -> None:
        """Probes detached in the block are committed however it ends."""
        session = data.draw(one_of(self.those(has_attached)))
        real = self.open[session]
        rest = session.attached
        parts = []
        for _ in range(data.draw(st.integers(0, 2), label="detaches")):
            if rest:
                parts.append(data.draw(some(rest)))
                rest = [probe for probe in rest if probe not in parts[-1]]
        ends: dict[str, type[Exception] | None] = {
            "end": None,
            "error": ZeroDivisionError,
            "refusal": NotAttachedError,
        }
        end = data.draw(one_of(ends), label="end")
        before = self.world.barriers()

        def act() -> None:
            with real.batch():
                for part in parts:
                    real.detach(self.reals(part))
                assert self.world.barriers() == before
                if end == "error":
                    raise ZeroDivisionError
                if end == "refusal":
                    real.detach(self.reals(session.probes[:1] * 2))

        for part in parts:
            session.detach(part)
        self.commits(session, act, reports=False, last=ends[end])

    def leave(self, data: st.DataObject) -> None:
        """Detach and commit the rest; closing once more does nothing."""
        how = data.draw(one_of(["detach_all", "close", "error"]), label="how")
        session = data.draw(one_of(self.those(was_used)))
        real = self.open[session]

        def leave_by_error() -> None:
            with real:
                raise ZeroDivisionError

        session.detach(session.attached)
        if how == "detach_all":
            self.commits(session, real.detach_all)
            return
        if how == "close":
            self.commits(session, real.close)
        else:
            self.commits(session, leave_by_error, reports=False, last=ZeroDivisionError)
        # Failed removals are tried again until none is left.
        self.commits(session, real.close)
        while has_work(session):
            self.commits(session, real.close)
        self.closed[session] = self.open.pop(session)

    def attach_to_a_closed_one(self, data: st.DataObject) -> None:
        session = data.draw(one_of(self.closed))
        with pytest.raises(SessionError):
            self.closed[session].attach([str(Site(self.world.calls[0], is_return=False))])
        # Once is enough: on a kernel this may take as long as a successful attach.
        self.was_refused = True

    def teardown(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.world.end)
            for real in self.open.values():
                stack.callback(real.close)
