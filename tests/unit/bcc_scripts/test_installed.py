# SPDX-License-Identifier: Apache-2.0
"""What bcc's library does while batchprobe is between, and when it is gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import batchprobe.bcc
from batchprobe.bcc import installed
from batchprobe.bcc.kprobe import Kprobe
from batchprobe.commit.queue import CommitReport
from batchprobe.errors import SessionError, UnsupportedError
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.functions.targets import Target
from batchprobe.probe import Probe

ARGUMENTS = (7, 0, b"p_function", b"function", 0, 0)


class FakeSession:
    """Attaches what it is given; `fails` makes it fail."""

    skipped = ()
    fails = False
    last: FakeSession

    def __init__(self, **options: object) -> None:
        self.options = options
        self.detached: list[Probe] = []
        self.commits = 0
        self.committed = Event()
        FakeSession.last = self

    def locate(self, _kprobe: Kprobe) -> int:
        return 1

    def attach(self, entries: list[ProbeSpec], **_: object) -> list[Probe]:
        if self.fails:
            raise UnsupportedError("nothing can be attached")
        return [Probe(Target(spec.text, spec, None)) for spec in entries]

    def detach(self, probe: Probe) -> None:
        self.detached.append(probe)

    def commit(self, **_: object) -> CommitReport:
        self.commits += 1
        self.committed.set()
        return CommitReport(barriers=1)

    def close(self, **_: object) -> CommitReport:
        return CommitReport(barriers=1)

    def end_trial(self) -> None:
        pass


class FakeLib(SimpleNamespace):
    """bcc's library: descriptors of kprobes are small, and only they can be closed."""

    def __init__(self) -> None:
        self.open = set[int]()
        super().__init__(
            bpf_attach_kprobe=self._attach,
            bpf_close_perf_event_fd=self._close,
            bpf_detach_kprobe=lambda _event: 0,
            bcc_func_load=lambda *_: 3,
        )

    def _attach(self, *_: object) -> int:
        self.open.add(30 + len(self.open))
        return max(self.open)

    def _close(self, fd: int) -> int:
        if fd not in self.open:
            return -1
        self.open.remove(fd)
        return 0


@pytest.fixture
def lib(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """bcc's library, without bcc."""
    bcc: Any = ModuleType("bcc")
    bcc.lib = FakeLib()
    monkeypatch.setitem(sys.modules, "bcc", bcc)
    monkeypatch.setattr(installed, "ToolSession", FakeSession)
    yield bcc.lib
    if installed._installed is not None:
        installed._installed.uninstall()
        installed._installed = None


def test_bcc_may_close_its_kprobes_when_they_are_uninstalled(lib: Any) -> None:
    batchprobe.bcc.install()
    token = lib.bpf_attach_kprobe(*ARGUMENTS)
    batchprobe.bcc.uninstall()
    assert lib.bpf_close_perf_event_fd(token) == 0
    fd = lib.bpf_attach_kprobe(*ARGUMENTS)
    assert fd < token
    assert lib.bpf_close_perf_event_fd(fd) == 0
    # That is bcc's own.
    assert lib.bpf_close_perf_event_fd(fd) == -1


def test_an_uninstalled_kprobe_is_none_of_the_next_install(lib: Any) -> None:
    batchprobe.bcc.install()
    before = lib.bpf_attach_kprobe(*ARGUMENTS)
    batchprobe.bcc.uninstall()
    batchprobe.bcc.install()
    after = lib.bpf_attach_kprobe(*ARGUMENTS)
    batchprobe.bcc.flush()
    lib.bpf_close_perf_event_fd(before)
    assert FakeSession.last.detached == []
    lib.bpf_close_perf_event_fd(after)
    assert len(FakeSession.last.detached) == 1


def test_uninstall_removes_what_was_left_to_bcc_after_all(
    lib: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "fails", True)
    batchprobe.bcc.install()
    lib.bpf_attach_kprobe(*ARGUMENTS)
    batchprobe.bcc.flush()
    assert len(lib.open) == 1
    batchprobe.bcc.uninstall()
    assert lib.open == set()


def test_what_is_detached_is_removed_when_it_is_quiet(lib: Any) -> None:
    batchprobe.bcc.install()
    tokens = [lib.bpf_attach_kprobe(*ARGUMENTS) for _ in range(2)]
    batchprobe.bcc.flush()
    # The thread that looks whether it is quiet after the attach.
    assert installed._installed is not None
    installed._installed._moments.stop_watcher()
    for token in tokens:
        lib.bpf_close_perf_event_fd(token)
    session = FakeSession.last
    assert len(session.detached) == 2
    # Without a moment at which kprobes are armed, such as time.sleep.
    assert session.committed.wait(5)
    assert session.commits == 1


def test_under_run_a_script_that_installs_has_the_options_of_run(lib: Any) -> None:
    filters = ("those of -p",)
    installed.Installed(
        lambda: FakeSession(filters=filters),  # type: ignore[arg-type, return-value]
        lambda _summary: None,
        is_filtered=True,
    )
    batchprobe.bcc.install(abi="event")
    lib.bpf_attach_kprobe(*ARGUMENTS)
    batchprobe.bcc.flush()
    assert FakeSession.last.options == {"filters": filters}
    batchprobe.bcc.uninstall()
    lib.bpf_attach_kprobe(*ARGUMENTS)
    batchprobe.bcc.flush()
    assert FakeSession.last.options == {"filters": filters}
    assert lib.open == set()


def test_a_script_installs_once(lib: Any) -> None:
    batchprobe.bcc.install()
    replaced = lib.bpf_attach_kprobe
    with pytest.raises(SessionError, match="installed already"):
        batchprobe.bcc.install()
    assert lib.bpf_attach_kprobe == replaced
