# SPDX-License-Identifier: Apache-2.0
"""Scope: the shipped filters as one, whose programs are compiled ahead.

A ScopeFilter says which test of bpf/scope.h it asks for, and with which numbers. Scope puts all of
a session's together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from batchprobe.filters.base import Filter
from batchprobe.programs.maps import CELL_SIZE, Cells, MapSpec, lift_memlock_limit, possible_cpus
from batchprobe.programs.process_tree import MAP as TREE
from batchprobe.programs.process_tree import ProcessTree
from batchprobe.programs.source import read_bpf
from batchprobe.sys import bpf, fds

__all__ = ["MAX_CGROUPS", "Scope", "ScopeFilter", "combined", "u64"]

MAX_CGROUPS = 8
"""Cgroups that one filter can name, as in bpf/scope.h."""
_COMM_SIZE = 16
_CONSTANTS = (
    *("SCOPE_PID", "SCOPE_PIDS", "SCOPE_TIDS", "SCOPE_TREE", "SCOPE_CPUS", "SCOPE_UIDS"),
    *("SCOPE_COMMS", "SCOPE_NETS", "SCOPE_CGROUPS"),
    *("TASK_NSPROXY_AT", "NSPROXY_NET_AT", "NET_INODE_AT"),
)
# Hash maps of bpf/scope.h, and the size of their keys.
_SETS = {
    "scope_pids": CELL_SIZE,
    "scope_tids": CELL_SIZE,
    "scope_uids": CELL_SIZE,
    "scope_nets": CELL_SIZE,
    "scope_comms": _COMM_SIZE,
}
_CPUS = "scope_cpus"
_CGROUPS = "scope_cgroups"


def u64(numbers: Iterable[int]) -> list[bytes]:
    """Numbers as keys of a map."""
    return [struct.pack("=Q", number) for number in numbers]


class ScopeFilter(Filter):
    """A filter with a test in bpf/scope.h. A hit counts if all filters of its session pass it."""

    source = ""

    def arguments(self) -> Sequence[int | str]:
        """What its class is called with to make it again, in another process."""
        return ()

    @property
    def lost(self) -> int:
        """Threads for which there was no room: their hits did not count."""
        return 0

    def sets(self) -> Mapping[str, Sequence[bytes]]:
        """What counts: keys by the name of their map."""
        return {}

    def cpus(self) -> Sequence[int] | None:
        """The CPUs whose hits count, if not those of all."""
        return None

    def open_cgroups(self) -> list[int]:
        """Descriptors of the cgroups whose tasks count, to be closed by the caller."""
        return []

    def follow(self, others: Sequence[ScopeFilter]) -> ProcessTree | None:
        """The tree of processes that counts, if it is a tree. `others` are all of the session."""
        del others
        return None

    @property
    def is_root(self) -> bool:
        """Whether a tree of processes takes it as its root, and tests for it."""
        return False


class Scope(Filter):
    """All ScopeFilters of a session."""

    name = "scope"
    source = read_bpf("tree.h", "scope.h")

    def __init__(self, parts: Sequence[ScopeFilter]) -> None:
        self._parts = parts
        self._fds: dict[str, int] = {}
        self._cpus: Cells | None = None
        self._tree: ProcessTree | None = None

    def constants(self) -> Mapping[str, int]:
        """The tests that are asked for."""
        constants = dict.fromkeys(_CONSTANTS, 0)
        has_tree = any(part.name == "children" for part in self._parts)
        for part in self._parts:
            if not (has_tree and part.is_root):
                constants.update(part.constants())
        return constants

    def start(self) -> None:
        """Create the maps, and begin to follow processes."""
        if self._fds:
            return
        lift_memlock_limit()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        keys = {name: list[bytes]() for name in _SETS}
        for part in self._parts:
            for name, more in part.sets().items():
                keys[name] += more
        for name, size in _SETS.items():
            self._create(name, bpf.BPF_MAP_TYPE_HASH, size, CELL_SIZE, len(keys[name]))
            for key in keys[name]:
                bpf.map_update(self._fds[name], key, struct.pack("=Q", 1))
        self._cpus = Cells(MapSpec.array(_CPUS, possible_cpus()))
        self._fds[_CPUS] = self._cpus.fd
        for part in self._parts:
            for cpu in part.cpus() or ():
                self._cpus.cells[cpu] = 1
        cgroups = [fd for part in self._parts for fd in part.open_cgroups()]
        self._create(_CGROUPS, bpf.BPF_MAP_TYPE_CGROUP_ARRAY, 4, 4, len(cgroups))
        for at, fd in enumerate(cgroups):
            bpf.map_update(self._fds[_CGROUPS], struct.pack("=I", at), struct.pack("=I", fd))
            fds.close(fd)
        trees = (part.follow(self._parts) for part in self._parts)
        self._tree = next((tree for tree in trees if tree is not None), None)
        if self._tree is None:
            self._create(TREE, bpf.BPF_MAP_TYPE_HASH, CELL_SIZE, CELL_SIZE, 1)

    def _create(self, name: str, kind: int, key_size: int, value_size: int, entries: int) -> None:
        self._fds[name] = bpf.map_create(
            name, kind, key_size=key_size, value_size=value_size, entries=max(entries, 1)
        )

    def shared(self) -> Mapping[str, int]:
        """All maps of bpf/scope.h."""
        return {**self._fds, TREE: self._tree.fd} if self._tree else self._fds

    def stop(self) -> None:
        """Close the maps, and follow no processes any more."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        cpus, self._cpus = self._cpus, None
        if cpus is not None:
            self._fds.pop(_CPUS)
            cpus.close()
        while self._fds:
            fds.close(self._fds.popitem()[1])


def combined(filters: Sequence[Filter]) -> tuple[Filter, ...]:
    """The filters with all shipped ones put together, first."""
    parts = [one for one in filters if isinstance(one, ScopeFilter)]
    others = [one for one in filters if not isinstance(one, ScopeFilter)]
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"two filters of one kind: {', '.join(names)}; name both in one")
    return (Scope(parts), *others) if parts else tuple(others)
