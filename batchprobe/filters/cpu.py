# SPDX-License-Identifier: Apache-2.0
"""Cpu: hits on some CPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchprobe.filters.scope import ScopeFilter
from batchprobe.programs.maps import possible_cpus

__all__ = ["Cpu"]


class Cpu(ScopeFilter):
    """Counts hits on these CPUs. Raises ValueError for one that the kernel cannot have."""

    name = "cpu"

    def __init__(self, *cpus: int) -> None:
        if not cpus:
            raise ValueError("no CPU is named")
        _require_possible(cpus)
        self._cpus = cpus

    @classmethod
    def of(cls, text: str) -> Cpu:
        """The CPUs of a list as the kernel writes it, such as 0-3,8. Raises ValueError."""
        cpus: list[int] = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise ValueError(f"{text!r} is no list of CPUs: write it as 0-3,8")
            if dash and int(last) < int(first):
                raise ValueError(f"{part} ends before it begins")
            # Before the list is made, which a slip of the finger would make of any length.
            _require_possible((int(first), int(last or first)))
            cpus += range(int(first), int(last or first) + 1)
        return cls(*cpus)

    def constants(self) -> Mapping[str, int]:
        """CPUs are looked up."""
        return {"SCOPE_CPUS": 1}

    def arguments(self) -> Sequence[int | str]:
        """The CPUs."""
        return self._cpus

    def cpus(self) -> Sequence[int]:
        """The CPUs."""
        return self._cpus


def _require_possible(cpus: Sequence[int]) -> None:
    possible = possible_cpus()
    for cpu in cpus:
        if not 0 <= cpu < possible:
            raise ValueError(f"no CPU {cpu}: this machine's are 0 to {possible - 1}")
