# SPDX-License-Identifier: Apache-2.0
"""Sessions on the running kernel against the model, with methods called in any order.

After each step, the kernel's own lists of kprobes, trace events, links, ftrace users and programs
must equal those of the model, and the attached probes must have counted every call.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import pytest
from helpers.machine import ABIS, PLACES, PREFIX, RELEASE, eventually, kinds
from helpers.objects import Bundle, Kprobe, Objects, objects, programs
from helpers.traced import traced
from helpers.workers import CALLS, Worker
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from model.machine import Semantics
from model.semantics import Model, ModelAttachment

from batchprobe import Probe, Session

pytestmark = pytest.mark.stress

# System calls with arguments, because the function of one without has several names. Only a few, so
# that sessions probe the same ones.
NAMES = tuple(call for call in CALLS if call != "sched_yield")[:5]
# Each ABI with each of its placements, and `auto` where its choice is the same for every function.
# Links have more cases than the other ABIs, so they come as often as all of those.
OPTIONS = (
    ("auto", "auto" if "multi" in ABIS else PLACES[-1]),
    *((abi, placement) for abi in ABIS for placement in PLACES if abi != "multi"),
    *([("multi", "auto")] * 3 if "multi" in ABIS else []),
)
MEMBARRIER = f"{PREFIX}membarrier"
# Before 6.14 each link is an ftrace user of its own.
LINKS_ARE_USERS = RELEASE < (6, 14)

NameT = TypeVar("NameT", str, int)
# An attachment, and how often its link was replaced.
Generation = tuple[ModelAttachment, int]


class KernelWorld:
    """The running kernel during one example."""

    calls = NAMES
    options = OPTIONS
    returns = "%return" in kinds("event")
    most_sessions = 3

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        with contextlib.ExitStack() as undo:
            self._barriers = undo.enter_context(traced(MEMBARRIER))
            self._before = objects()
            self._programs_before = programs()
            self._undo = undo.pop_all()
        # The trace event of an attachment, which never changes; or the program of its link, and the
        # link's id, until a smaller link replaces it.
        self._events: dict[Generation, str] = {}
        self._programs: dict[Generation, int] = {}
        self._link_ids: dict[Generation, int] = {}

    def open(self, abi: str, placement: str, /) -> Session:
        return Session(abi=abi, placement=placement)

    def abi(self, option: str) -> str:
        return ABIS[0] if option == "auto" else option

    def stranger(self, probe: Probe) -> Probe:
        return Probe(probe.target)

    def call(self, rounds: int) -> None:
        self._worker.call(NAMES, rounds)

    def barriers(self) -> int:
        return self._barriers().total()

    def compare(self, model: Model) -> None:
        before, now, attachments = self._before, objects(), model.attachments
        kprobes = Counter(kprobe for attachment in attachments for kprobe in _kprobes(attachment))
        assert now.kprobes == before.kprobes + kprobes
        of_events = [attachment for attachment in attachments if attachment.abi == "event"]
        assert now.events == before.events | _named(self._events, of_events, now.events)
        linked = [attachment for attachment in attachments if attachment.abi == "multi"]
        assert now.links == before.links | _named(self._programs, linked, now.links)
        for attachment in linked:
            generation = (attachment, attachment.generation)
            link_id = now.link_ids[self._programs[generation]]
            assert self._link_ids.setdefault(generation, link_id) == link_id
        assert len(set(self._link_ids.values())) == len(self._link_ids), "a link was not replaced"
        self._compare_users(now, kprobes, linked)

        def freed() -> bool:
            return len(programs() - self._programs_before) == len(attachments)

        eventually(freed, "each attachment has a program, and there are no others", seconds=20)

    def _compare_users(
        self, now: Objects, kprobes: Iterable[Kprobe], linked: Sequence[ModelAttachment]
    ) -> None:
        # All kprobes at entries share one ftrace user.
        users = Counter({kprobe.call for kprobe in kprobes if kprobe.is_ftrace})
        users.update(probe.site.call for attachment in linked for probe in attachment.holds)
        users += self._before.users
        if LINKS_ARE_USERS:
            assert now.users == users
        else:
            assert now.users.keys() == users.keys()

    def end(self) -> None:
        with self._undo:
            self.compare(Model())


def _named(
    names: dict[Generation, NameT],
    attachments: Sequence[ModelAttachment],
    there: Mapping[NameT, Bundle],
) -> dict[NameT, Bundle]:
    """The objects that these attachments must have; a new one is identified by its probes."""
    bundles = [
        (
            (attachment, attachment.generation),
            Bundle(
                attachment.is_return, tuple(sorted(probe.site.call for probe in attachment.holds))
            ),
        )
        for attachment in attachments
    ]
    expected = {}
    for generation, bundle in bundles:
        if generation not in names:
            known = names.values()
            fresh = [name for name in there if there[name] == bundle and name not in known]
            # Two links that one commit replaced may be equal.
            alike = sum(1 for other, its in bundles if its == bundle and other not in names)
            assert len(fresh) == alike, f"{alike} should be {bundle}; there are {there}"
            names[generation] = fresh[0]
        expected[names[generation]] = bundle
    return expected


def _kprobes(attachment: ModelAttachment) -> list[Kprobe]:
    if attachment.abi == "multi":
        return []
    at_entry = attachment.is_return or attachment.placement == "entry"
    return [Kprobe(p.site.call, attachment.is_return, at_entry) for p in attachment.holds]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable what takes most of the time under emulation and tests nothing."""
    # Hypothesis would parse all modules, to find constants to draw, which takes 20 s.
    providers = sys.modules["hypothesis.internal.conjecture.providers"]
    monkeypatch.setattr(providers, "is_local_module_file", lambda _path: False, raising=False)


def run(worker: Worker, *, examples: int, steps: int) -> None:
    class OnThisKernel(Semantics):
        def __init__(self) -> None:
            super().__init__(KernelWorld(worker))

    run_state_machine_as_test(
        OnThisKernel,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            # A failure prints its steps, and the decorator of OnThisKernel that repeats it.
            print_blob=True,
        ),
    )


def test_sessions_do_what_the_model_says(workers: list[Worker]) -> None:
    run(workers[0], examples=6, steps=25)


@pytest.mark.long
def test_sessions_do_what_the_model_says_for_long(workers: list[Worker]) -> None:
    run(workers[0], examples=40, steps=40)
