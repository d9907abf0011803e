# SPDX-License-Identifier: Apache-2.0
"""Attaches, detaches and commits from many threads at once, while it forks and gets signals.

    python3 -m helpers.churn ABI THREADS SECONDS SEED

Prints one JSON object when everything is closed. If a promise was broken, prints the error to
stderr and exits with 1.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial

from batchprobe import CommitReport, NotAttachedError, Probe, ProbeState, Session, SessionError
from helpers.machine import kinds
from helpers.workers import CALLS

ENTRIES = [f"syscall:{call}{kind}" for kind in kinds("event") for call in CALLS]
FORK_SECONDS = 0.5
POKE_SECONDS = 0.1
WANTED = ("attach", "fork", "interrupt", "detach in a handler")
PATIENCE_SECONDS = 60
# An attach takes a hundred times as long as a detach. So before the threads start, this many probes
# of each entry are attached; a thread that wants one takes it from there with this probability.
STOCK = 5
TAKES = 0.9


class Churn:
    """The state that the threads share, and what they observed."""

    def __init__(self, abi: str) -> None:
        self.session = Session(abi=abi)
        # Record each report inside the queue: after Ctrl-C a commit completes and then raises
        # KeyboardInterrupt, so its caller gets no report.
        self.commit = self.session._queue.commit
        self.session._queue.commit = self.recorded_commit  # type: ignore[method-assign]
        # Disarming perf return probes whose functions are being called crashes Linux 6.1 under
        # emulation with a thread per CPU, but not with a single thread.
        self.entries = ENTRIES if abi != "perf" else ENTRIES[: len(CALLS)]
        self.end = math.inf
        self.lock = threading.Lock()
        self.done = Counter[str]()
        self.reports: dict[int, CommitReport] = {}
        self.finals: dict[Probe, int] = {}
        self.errors: list[str] = []
        # Attached in advance, for threads to take. Only pop() is safe, because it is one step, and
        # Ctrl-C may come between any two.
        self.stock: list[Probe] = []
        # Whether the main thread can take Ctrl-C. It cannot while it handles one.
        self.ready = False

    @property
    def goes_on(self) -> bool:
        """True until the time is up and all of WANTED were done, or a thread failed."""
        over = time.monotonic() - self.end
        lacking = any(not self.done[what] for what in WANTED) and over < PATIENCE_SECONDS
        return (over < 0 or lacking) and not self.errors

    def recorded_commit(
        self, on_final: Callable[[], None] | None = None, wait: bool | Callable[[], bool] = True
    ) -> CommitReport:
        report = self.commit(on_final, wait)
        # Keep the report, so that no later one gets its id.
        self.reports[id(report)] = report
        return report

    def note(self, what: str) -> None:
        """Count something that was done."""
        with self.lock:
            self.done[what] += 1

    def guard(self, run: Callable[[], None]) -> None:
        """Record an exception, which stops all threads."""
        try:
            run()
        except BaseException:
            self.errors.append(traceback.format_exc())

    def work(self, chance: random.Random) -> None:
        """The loop of one thread."""
        own: list[Probe] = []
        queued: list[Probe] = []
        while self.goes_on:
            match chance.choice(("more", "detach", "detach", "at once", "commit", "read")):
                case "more" if chance.random() < TAKES:
                    own += self._take()
                case "more" if len(own) < 8:
                    own += self.session.attach(chance.sample(self.entries, chance.randint(1, 4)))
                    self.note("attach")
                case "detach" if own:
                    leaving = chance.sample(own, chance.randint(1, len(own)))
                    self.session.detach(leaving)
                    self._check_refused(leaving[0])
                    own = [probe for probe in own if probe not in leaving]
                    queued += leaving
                case "at once" if own:
                    probe = own.pop()
                    self.session.detach(probe, commit=True)
                    self.note("commit")
                    self._check_quiet([probe, *queued])
                    queued.clear()
                case "commit":
                    self.session.commit()
                    self.note("commit")
                    self._check_quiet(queued)
                    queued.clear()
                case "read":
                    self.session.counts()
        if own:
            self.session.detach(own)
        self.session.commit()
        self.note("commit")
        self._check_quiet([*own, *queued])

    def _take(self) -> list[Probe]:
        """Take one probe from the stock; an empty list if there is none."""
        try:
            return [self.stock.pop()]
        except IndexError:
            return []

    def _check_refused(self, probe: Probe) -> None:
        try:
            self.session.detach(probe)
        except NotAttachedError:
            return
        raise AssertionError(f"{probe} was detached twice")

    def _check_quiet(self, probes: list[Probe]) -> None:
        """After a commit, the hits of its probes in the kernel's maps must not change."""
        for probe in probes:
            assert probe.state is ProbeState.DETACHED, probe
            with self.lock:
                self.finals[probe] = probe.count
        for _ in range(2):
            for probe in probes:
                attachment = probe.attachment
                if attachment is not None and probe.address is not None:
                    with attachment.maps.lock:
                        if attachment.live:
                            assert attachment.maps.hits_of(probe.slot) == probe.count, probe
            time.sleep(0.002)

    def fork(self, chance: random.Random) -> None:
        """Fork children of random lifetimes: they can use nothing, and must disturb nothing."""
        while self.goes_on:
            child = os.fork()
            if not child:
                status = 1
                try:
                    self.session.commit()
                except SessionError:
                    status = 0
                finally:
                    time.sleep(chance.random())
                    os._exit(status)
            self.note("fork")
            time.sleep(chance.random() * FORK_SECONDS)
            assert os.waitpid(child, 0)[1] == 0, "a child could use the session"

    def poke(self, chance: random.Random) -> None:
        """Signal the main thread at random moments, with SIGINT only when it is ready."""
        while self.goes_on:
            time.sleep(chance.random() * POKE_SECONDS)
            os.kill(os.getpid(), signal.SIGUSR1)
            if self.ready:
                self.ready = False
                os.kill(os.getpid(), signal.SIGINT)

    def main(self) -> None:
        """The loop of the main thread, in which Ctrl-C may come at any moment."""
        probes: list[Probe] = []
        while True:
            try:
                self.ready = True
                while self.goes_on:
                    probes = self._take() or self.session.attach(["vfs_read"])
                    self.session.detach(probes)
                    self.session.commit()
                    self.note("commit")
                    self._check_quiet(probes)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            except KeyboardInterrupt:
                self.note("interrupt")
                # The session deferred it until nothing was half-done.
                self.session.detach(p for p in probes if p.state is ProbeState.ATTACHED)
                self.session.commit()
                self.note("commit")
                self._check_quiet(probes)
            else:
                return

    def on_signal(self, *_: object) -> None:
        """A signal handler that detaches, wherever the main thread is."""
        taken = self._take()
        self.session.detach(taken)
        # Without the lock, because the interrupted thread may hold it.
        self.done["detach in a handler"] += len(taken)


def main() -> int:
    abi, threads, seconds, seed = sys.argv[1:]
    churn = Churn(abi)
    signal.signal(signal.SIGUSR1, churn.on_signal)
    parts = [*[churn.work] * int(threads), churn.fork, churn.poke]
    running = [
        threading.Thread(
            target=churn.guard, args=[partial(part, random.Random(int(seed) + number))]
        )
        for number, part in enumerate(parts)
    ]
    for _ in range(STOCK):
        churn.stock += churn.session.attach(churn.entries)
    churn.end = time.monotonic() + float(seconds)
    for thread in running:
        thread.start()
    churn.guard(churn.main)
    for thread in running:
        thread.join()
    churn.session.close()
    churn.note("commit")
    moved = [probe for probe, count in churn.finals.items() if probe.count != count]
    reports = churn.reports.values()
    result = {
        **churn.done,
        "barriers": sum(report.barriers for report in reports),
        "probes": sum(report.probes for report in reports),
        "finals": len(churn.finals),
        "hits": sum(churn.finals.values()),
        "failed": [failure.what for report in reports for failure in report.failed],
        "moved": [repr(probe) for probe in moved],
    }
    print(json.dumps(result), flush=True)
    for error in churn.errors:
        print(error, file=sys.stderr)
    return 1 if churn.errors else 0


if __name__ == "__main__":
    sys.exit(main())
