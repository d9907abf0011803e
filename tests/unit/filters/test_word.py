# SPDX-License-Identifier: Apache-2.0
"""Filters that became a word are the same filters when they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module

import pytest

from batchprobe.filters import cgroup
from batchprobe.filters import cpu as cpu_filter
from batchprobe.filters.cgroup import Cgroup
from batchprobe.filters.children import Children
from batchprobe.filters.comm import Comm
from batchprobe.filters.cpu import Cpu
from batchprobe.filters.netns import NetNamespace
from batchprobe.filters.pid import Pid, Tid
from batchprobe.filters.scope import ScopeFilter
from batchprobe.filters.uid import Uid
from batchprobe.filters.word import SHIPPED, as_word, from_word


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with 16 CPUs, where every path is a cgroup."""
    monkeypatch.setattr(cpu_filter, "possible_cpus", lambda: 16)
    monkeypatch.setattr(cgroup, "_found", lambda path: f"/{path.strip('/')}")


def test_every_shipped_filter_has_a_name_in_it() -> None:
    for name, (module, kind) in SHIPPED.items():
        assert getattr(import_module(f"batchprobe.filters.{module}"), kind).name == name
    kinds = ScopeFilter.__subclasses__()
    assert set(SHIPPED) == {one.name for one in kinds if one.__module__.startswith("batchprobe.")}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pid(7),
        lambda: Pid(8, 7),
        lambda: Tid(9, 10),
        Children,
        lambda: Comm("a name", "0123456789abcdefgh", 'ü"\\ \n', "\udcff"),
        lambda: Uid(0, 65534),
        lambda: Cpu.of("0-3,8"),
        lambda: Cgroup("a b", "/sys/fs/cgroup/system.slice/x.service"),
        lambda: NetNamespace(4026531840),
    ],
)
def test_a_filter_is_the_same_again(make: Callable[[], ScopeFilter]) -> None:
    one = make()
    word = as_word([one])
    assert word.isascii()
    assert word.isprintable()
    (again,) = from_word(word)
    assert type(again) is type(one)
    assert again is not one
    assert list(again.arguments()) == list(one.arguments())
    assert list(again.cpus() or ()) == list(one.cpus() or ())
    if not isinstance(one, NetNamespace):
        # Its constants are the kernel's.
        assert again.constants() == one.constants()
    if not isinstance(one, Pid | Tid):
        # The same outside of a PID namespace only.
        assert again.sets() == one.sets()


def test_several_keep_their_order() -> None:
    filters = [Uid(1), Pid(7), Children()]
    assert [type(one) for one in from_word(as_word(filters))] == [Uid, Pid, Children]
    assert from_word(as_word([])) == []


def test_what_is_no_filter_any_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    word = as_word([Cpu(15)])
    monkeypatch.setattr(cpu_filter, "possible_cpus", lambda: 2)
    with pytest.raises(ValueError, match="no CPU 15"):
        from_word(word)
    with pytest.raises(ValueError, match=r"\w"):
        from_word(json.dumps({"pid": []}))
