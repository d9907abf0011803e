# SPDX-License-Identifier: Apache-2.0
"""What the shipped filters ask of bpf/scope.h."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchprobe import Filter
from batchprobe.actions.count import Count
from batchprobe.actions.loader import section_of
from batchprobe.filters import cgroup as cgroup_filter
from batchprobe.filters import cpu as cpu_filter
from batchprobe.filters.cgroup import Cgroup, unit_cgroup
from batchprobe.filters.children import Children
from batchprobe.filters.comm import Comm
from batchprobe.filters.cpu import Cpu
from batchprobe.filters.netns import NetNamespace
from batchprobe.filters.pid import Pid, Tid
from batchprobe.filters.scope import MAX_CGROUPS, Scope, combined
from batchprobe.filters.uid import Uid

SCOPE = (Path(__file__).resolve().parents[3] / "bpf/scope.h").read_text()


def constants(*filters: Filter) -> dict[str, int]:
    """Those that are not 0."""
    (scope,) = combined(filters)
    return {name: value for name, value in scope.constants().items() if value}


def test_every_constant_is_one_of_the_programs() -> None:
    named = set(re.findall(r"CONSTANT\((\w+)\)", SCOPE))
    assert set(Scope([]).constants()) == named


def test_one_process_is_compared_and_several_are_looked_up() -> None:
    assert constants(Pid(7)) == {"SCOPE_PID": 7}
    assert constants(Pid(7, 8, 7)) == {"SCOPE_PIDS": 1}


def test_filters_combine() -> None:
    assert constants(Tid(3), Uid(0), Comm("sh")) == {
        "SCOPE_TIDS": 1,
        "SCOPE_UIDS": 1,
        "SCOPE_COMMS": 1,
    }


def test_a_tree_takes_its_roots() -> None:
    """Otherwise the test for the root would leave its children out."""
    assert constants(Pid(7), Tid(8), Children()) == {"SCOPE_TREE": 1}
    assert constants(Children(), Uid(1), Pid(7)) == {"SCOPE_TREE": 1, "SCOPE_UIDS": 1}


def test_two_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="two filters of one kind"):
        combined([Pid(1), Pid(2)])


def test_filters_of_ones_own_stay() -> None:
    class Mine(Filter):
        name = "mine"
        source = ""

    mine = Mine()
    assert combined([mine]) == (mine,)
    scope, last = combined([mine, Pid(1)])
    assert isinstance(scope, Scope)
    assert last is mine


def test_shipped_filters_have_shipped_programs() -> None:
    class Mine(Filter):
        name = "mine"
        source = ""

    assert section_of(Count(), []) == "count"
    assert section_of(Count(), combined([Pid(1)])) == "count+scope"
    assert section_of(Count(), combined([Pid(1), Mine()])) == ""
    assert section_of(Count(), [Mine()]) == ""


@pytest.mark.parametrize(
    "make",
    [Pid, Tid, Uid, Comm, Cpu, Cgroup, NetNamespace, lambda: Pid(0), lambda: Uid(-1),
     lambda: Uid(0, 2**32 - 1), lambda: Uid(10**20), lambda: Comm(""), lambda: NetNamespace(0)],
)  # fmt: skip
def test_what_names_nothing_is_refused(make: type[Filter]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_cgroups_have_a_limit_that_the_program_knows() -> None:
    assert f"#define MAX_CGROUPS {MAX_CGROUPS}\n" in SCOPE
    with pytest.raises(ValueError, match="name 1 to 8"):
        Cgroup(*["/"] * (MAX_CGROUPS + 1))


def test_a_cgroup_is_one_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd mounts them both: /sys/fs/cgroup/unified beside /sys/fs/cgroup/memory."""
    old, new = tmp_path / "memory/a.slice", tmp_path / "unified/b.slice"
    for folder, names in ((old, ["tasks"]), (new, ["cgroup.controllers"])):
        folder.mkdir(parents=True)
        for name in ("cgroup.procs", *names):
            (folder / name).touch()
    monkeypatch.setattr(cgroup_filter, "mount_point", lambda: str(tmp_path / "unified"))
    for path in (str(new), "b.slice", "/b.slice"):
        assert Cgroup(path).arguments() == [str(new)]
    for path in (str(old), "a.slice"):
        with pytest.raises(ValueError, match="is no cgroup of"):
            Cgroup(path)


@pytest.mark.parametrize(
    ("unit", "folder"),
    [
        ("nginx", "system.slice/nginx.service"),
        ("php8.2-fpm", "system.slice/php8.2-fpm.service"),
        ("php8.2-fpm.service", "system.slice/php8.2-fpm.service"),
        ("user@1000", "user.slice/user@1000.service"),
        ("system.slice", "system.slice"),
        ("run-r1.scope", "user.slice/run-r1.scope"),
    ],
)
def test_a_unit_is_a_service_unless_its_type_is_named(
    unit: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(cgroup_filter, "mount_point", lambda: str(tmp_path))
    assert unit_cgroup(unit) == str(tmp_path / folder)


def test_names_are_cut_where_the_kernel_cuts_them() -> None:
    assert Comm("0123456789abcdefgh").sets() == {"scope_comms": [b"0123456789abcde\0"]}
    # Bytes, not characters.
    (key,) = Comm("é" * 8).sets()["scope_comms"]
    assert len(key) == 16
    assert key[15:] == b"\0"


def test_a_name_is_any_bytes() -> None:
    """As /proc/PID/comm has them: the kernel may cut a character in two."""
    cut = ("é" * 8).encode()[:15]
    # What sys.argv makes of it.
    assert Comm(cut.decode(errors="surrogateescape")).sets() == {"scope_comms": [cut + b"\0"]}


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", [0]), ("0-3,8", [0, 1, 2, 3, 8]), ("7,1-1", [7, 1])]
)
def test_a_list_of_cpus(text: str, cpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_filter, "possible_cpus", lambda: 16)
    assert list(Cpu.of(text).cpus()) == cpus


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "3-1", "1,,2", "0x1", "16", "1-99", "0-99999999999999999999"]
)
def test_what_is_no_list_of_cpus(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_filter, "possible_cpus", lambda: 16)
    with pytest.raises(ValueError, match=r"is no list|ends before|no CPU"):
        Cpu.of(text)
