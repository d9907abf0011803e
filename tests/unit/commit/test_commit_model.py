# SPDX-License-Identifier: Apache-2.0
"""The commit queue against the model, on sessions and attachments that are plain Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from model.machine import Semantics, one_of
from model.semantics import Model, ModelAttachment, ModelSession

from batchprobe.commit.queue import (
    CommitQueue,
    CommitReport,
    Reclaimed,
    Remains,
    RemovalFailure,
)
from batchprobe.errors import KernelError, NotAttachedError, SessionError
from batchprobe.probe import ProbeState

STUBBORN = RemovalFailure("a stubborn one", 16)


@dataclass(eq=False, slots=True)
class Thing:
    """Stands for a probe and its gate."""

    label: str
    attachment: Bundle | None
    state: ProbeState = ProbeState.ATTACHED
    is_open: bool = True
    count: int = 0

    def __repr__(self) -> str:
        return f"<{self.label} {self.state.value}>"


class Bundle:
    """An attachment, removed with its last live thing. With `perf`, each thing is its own last."""

    def __init__(self, abi: str) -> None:
        self.shared = abi != "perf"
        self.live: list[Thing] = []
        self.stubborn = 0
        self.raises: type[Exception] | None = None

    def takes_long(self, gone: Sequence[Thing]) -> bool:
        return False

    def reclaim(self, gone: Sequence[Thing], remains: Remains | None = None) -> Reclaimed:
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise error
        # After the barrier, and each thing once.
        assert {thing.state for thing in gone} <= {ProbeState.DETACHED}
        for thing in gone:
            self.live.remove(thing)
        failed = (STUBBORN,) if self.stubborn else ()
        self.stubborn -= len(failed)
        if self.live and self.shared:
            return Reclaimed(clean=len(gone), failed=failed)
        return Reclaimed(dirty=len(gone), failed=failed)


class PlainSession:
    """Uses the queue as `batchprobe.Session` does, without a kernel."""

    def __init__(self, world: PlainWorld, abi: str) -> None:
        self.given: list[Thing] = []
        self.attachments: list[Bundle] = []
        self._abi = abi
        self._closed = False
        self._queue: CommitQueue = CommitQueue(
            barrier=world.wait,
            expedited_grace_periods=contextlib.nullcontext,
            finalize=self._finalize,
            remove=lambda _remains, _wait: ([], False),
        )

    def _finalize(self, things: Sequence[Thing]) -> None:
        for thing in things:
            thing.state = ProbeState.DETACHED

    @property
    def probes(self) -> list[Thing]:
        return [thing for thing in self.given if thing.state is not ProbeState.DETACHED]

    @property
    def attached(self) -> list[Thing]:
        return [thing for thing in self.probes if thing.state is ProbeState.ATTACHED]

    def counts(self) -> dict[Thing, int]:
        return {thing: thing.count for thing in self.probes}

    def attach(self, entries: Iterable[str]) -> list[Thing]:
        if self._closed or self._queue.commits_here:
            raise SessionError("not now")
        bundles: dict[bool, Bundle] = {}
        things = []
        for entry in entries:
            bundle = bundles.setdefault(entry.endswith("%return"), Bundle(self._abi))
            things.append(Thing(entry, bundle))
            bundle.live.append(things[-1])
        self.given += things
        self.attachments += [bundle for _, bundle in sorted(bundles.items())]
        return things

    def detach(
        self, probes: Thing | Iterable[Thing], *, commit: bool = False
    ) -> CommitReport | None:
        gone = [probes] if isinstance(probes, Thing) else list(probes)

        def top() -> None:
            if len(set(gone)) < len(gone) or not set(gone) <= set(self.attached):
                raise NotAttachedError("one of them")
            self._top(gone)

        self._queue.add(gone, top)
        return self.commit() if commit else None

    def _top(self, gone: Iterable[Thing]) -> None:
        for thing in gone:
            thing.state, thing.is_open = ProbeState.QUEUED, False

    def commit(self, on_final: Callable[[], None] | None = None) -> CommitReport:
        return self._queue.commit(on_final)

    @contextlib.contextmanager
    def batch(self) -> Iterator[Self]:
        try:
            yield self
        finally:
            self.commit()

    def detach_all(self, on_final: Callable[[], None] | None = None) -> CommitReport:
        gone = self.attached
        self._queue.add(gone, lambda: self._top(gone))
        return self.commit(on_final)

    def close(self) -> CommitReport:
        self._closed = True
        return self.detach_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class PlainWorld:
    """Counts calls itself, and its barrier can be made to fail."""

    calls = ("read", "write", "open", "close", "stat")
    returns = True
    most_sessions = 6
    options = (("multi", ""), ("event", ""), ("perf", ""))

    def __init__(self) -> None:
        self.sessions: list[PlainSession] = []
        self.broken = False
        self._barriers = 0

    def open(self, abi: str, _placement: str, /) -> PlainSession:
        session = PlainSession(self, abi)
        self.sessions.append(session)
        return session

    def abi(self, option: str) -> str:
        return option

    def stranger(self, probe: Thing) -> Thing:
        return Thing(probe.label, probe.attachment)

    def call(self, rounds: int) -> None:
        for session in self.sessions:
            for thing in session.given:
                if thing.is_open:
                    thing.count += rounds

    def wait(self) -> int:
        if self.broken:
            raise KernelError("barrier", 22)
        self._barriers += 1
        return 1

    def barriers(self) -> int:
        return self._barriers

    def pairs(self, model: Model) -> list[tuple[ModelAttachment, Bundle]]:
        """Each attachment of the model, with the one of this world."""
        expected = [each for session in model.sessions for each in session.attachments]
        bundles = [bundle for session in self.sessions for bundle in session.attachments]
        return list(zip(expected, bundles, strict=True))

    def compare(self, model: Model) -> None:
        due = [probe for s in model.sessions for part in s.unreclaimed.values() for probe in part]
        for expected, bundle in self.pairs(model):
            there = [p for p in expected.probes if p.state is not ProbeState.DETACHED or p in due]
            assert [thing.label for thing in bundle.live] == [str(p.site) for p in there]

    def end(self) -> None:
        assert not any(bundle.live for session in self.sessions for bundle in session.attachments)


def has_queued(session: ModelSession) -> bool:
    return bool(session.queue)


class QueueSemantics(Semantics):
    """Adds failures that a kernel cannot be made to show: of the barrier, and of removals."""

    def __init__(self) -> None:
        self.plain = PlainWorld()
        super().__init__(self.plain)

    def steps(self) -> dict[str, int]:
        return {
            **super().steps(),
            "fail_to_wait": bool(self.those(has_queued)),
            "become_stubborn": bool(self.model.attachments),
        }

    def fail_to_wait(self, data: st.DataObject) -> None:
        """Nothing is reclaimed, and all probes stay queued."""
        session = data.draw(one_of(self.those(has_queued)))
        real = self.open[session]
        self.plain.broken = True
        with pytest.raises(KernelError):
            if data.draw(st.booleans(), label="everything"):
                session.detach(session.attached)
                real.detach_all()
            else:
                real.commit()
        self.plain.broken = False

    def become_stubborn(self, data: st.DataObject) -> None:
        attachment = data.draw(one_of(self.model.attachments))
        bundle = dict(self.plain.pairs(self.model))[attachment]
        if data.draw(st.booleans(), label="raises"):
            attachment.raises = bundle.raises = OverflowError
        else:
            attachment.stubborn = bundle.stubborn = data.draw(st.integers(1, 2))

    def teardown(self) -> None:
        for _, bundle in self.plain.pairs(self.model):
            bundle.stubborn, bundle.raises = 0, None
        super().teardown()


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        QueueSemantics,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            print_blob=True,
        ),
    )


def test_the_queue_behaves_like_the_model() -> None:
    run(examples=100, steps=40)


@pytest.mark.long
def test_the_queue_behaves_like_the_model_for_long() -> None:
    run(examples=1_500, steps=60)
