# SPDX-License-Identifier: Apache-2.0
"""Where bcc is missing, and what of its library is replaced."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from batchprobe import arch
from batchprobe.bcc.library import Library
from batchprobe.errors import UnsupportedError
from batchprobe.programs.compiler import compile_now
from batchprobe.programs.source import compose


def test_a_tool_and_a_compilation_ask_for_the_same_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(UnsupportedError, match="bcc's Python module is missing: ") as of_tool:
        Library()
    with pytest.raises(UnsupportedError, match="bcc's Python module is missing ") as of_compiler:
        compile_now(compose(arch.current()))
    assert "apt install python3-bpfcc" in of_tool.value.remedy
    assert of_tool.value.remedy == of_compiler.value.remedy


def test_attaches_that_succeed_and_are_no_kprobes_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attach(fd: int) -> int:
        return fd

    names = ("tracepoint", "raw_tracepoint", "uprobe", "perf_event", "kfunc", "lsm", "kprobe")
    others = {f"bpf_attach_{name}": attach for name in names}
    bcc = ModuleType("bcc")
    # Not each release has all of them: here there is no bpf_attach_perf_event_raw.
    lib = bcc.lib = SimpleNamespace(  # type: ignore[attr-defined]
        **others, bpf_close_perf_event_fd=attach, bpf_detach_kprobe=attach
    )
    monkeypatch.setitem(sys.modules, "bcc", bcc)
    library, noted = Library(), list[str]()
    library.note_others(noted.append)
    for name in names:
        replaced = getattr(lib, f"bpf_attach_{name}")
        assert replaced(3) == 3
        assert replaced(-1) == -1
    assert noted == [
        *("tracepoint", "tracepoint", "uprobe", "perf event", "fentry program", "LSM program")
    ]
    library.restore()
    assert vars(lib).items() >= others.items()


def test_each_read_of_results_waits_for_the_kprobes(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = ("bpf_lookup_elem", "bpf_lookup_and_delete", "bpf_get_next_key", "perf_reader_poll")
    bcc = ModuleType("bcc")
    names = (*reads, "bpf_attach_kprobe", "bpf_close_perf_event_fd", "bpf_detach_kprobe")
    lib = bcc.lib = SimpleNamespace(  # type: ignore[attr-defined]
        **{name: lambda number: number for name in names}, bcc_func_load=None
    )
    monkeypatch.setitem(sys.modules, "bcc", bcc)
    seen = list[str]()
    Library().replace(
        attach=lib.bpf_attach_kprobe,
        close=lib.bpf_close_perf_event_fd,
        detach=lib.bpf_detach_kprobe,
        before_read=lambda: seen.append("armed"),
    )
    for at, name in enumerate(reads, 1):
        assert getattr(lib, name)(at) == at
        assert len(seen) == at, name
