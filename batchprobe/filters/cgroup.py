# SPDX-License-Identifier: Apache-2.0
"""Cgroup: hits of tasks in some control groups and below them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from batchprobe.errors import UnsupportedError
from batchprobe.filters.scope import MAX_CGROUPS, ScopeFilter
from batchprobe.sys import fds
from batchprobe.sys.files import exists, read_text

__all__ = ["Cgroup", "mount_point", "unit_cgroup"]

# The types of systemd's units, systemd.unit(5). Other names may have dots too: php8.2-fpm.
_UNIT_TYPES = (
    *(".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path"),
    *(".timer", ".slice", ".scope"),
)
# Version 1 has cgroup.procs too, and the kernel refuses its groups with EBADF
# (cgroup_get_from_fd(), kernel/cgroup/cgroup.c).
_ONLY_IN_V2 = "cgroup.controllers"


class Cgroup(ScopeFilter):
    """Counts hits of tasks in these cgroups (v2), each with everything below it: also of groups
    and tasks that come later (bpf_current_task_under_cgroup(), kernel/trace/bpf_trace.c).

    A path is one of the file system, or relative to the mounted cgroup2. Raises ValueError for what
    is no cgroup, UnsupportedError where cgroup2 is not mounted.
    """

    name = "cgroup"

    def __init__(self, *paths: str) -> None:
        if not 0 < len(paths) <= MAX_CGROUPS:
            raise ValueError(f"{len(paths)} cgroups: name 1 to {MAX_CGROUPS}")
        self._paths = [_found(path) for path in paths]

    def constants(self) -> Mapping[str, int]:
        """How many there are."""
        return {"SCOPE_CGROUPS": len(self._paths)}

    def arguments(self) -> Sequence[int | str]:
        """Their folders."""
        return self._paths

    def open_cgroups(self) -> list[int]:
        """Open their folders. Raises OSError for one that is gone."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return [fds.open_noted(partial(os.open, path, flags)) for path in self._paths]


def mount_point() -> str:
    """Where cgroup2 is mounted, alone or beside version 1. Raises UnsupportedError."""
    for line in read_text("/proc/self/mountinfo").splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return fields[4]
    raise UnsupportedError(
        "cgroup2 is not mounted, and BPF knows no other cgroups",
        remedy="mount -t cgroup2 none /sys/fs/cgroup",
    )


def unit_cgroup(unit: str) -> str:
    """The cgroup of a running systemd unit, whose last part is the unit's name.

    Raises ValueError if there is none, or more than one.
    """
    name = unit if unit.endswith(_UNIT_TYPES) else f"{unit}.service"
    found = [folder for folder, _, _ in os.walk(mount_point()) if folder.endswith(f"/{name}")]
    if not found:
        raise ValueError(f"no running unit {name}: see `systemctl --all`")
    if found[1:]:
        raise ValueError(f"several units {name}: name one by its cgroup, {' or '.join(found)}")
    return found[0]


def _found(path: str) -> str:
    folder = os.path.realpath(path)
    if not exists(f"{folder}/{_ONLY_IN_V2}"):
        folder = os.path.realpath(f"{mount_point()}/{path}")
    if not exists(f"{folder}/{_ONLY_IN_V2}"):
        raise ValueError(f"{path} is no cgroup of {mount_point()}")
    return folder
