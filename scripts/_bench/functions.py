# SPDX-License-Identifier: Apache-2.0
"""Sets of functions that one glob selects in every tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batchprobe.functions.table import Function, FunctionTable
from batchprobe.kernel.tracefs import Tracefs

_ONE = "vfs_read"


@dataclass(frozen=True)
class FunctionSet:
    """The functions that a glob matches."""

    glob: str
    # Those of the core kernel that each tool can attach to.
    functions: Sequence[Function]


class Functions:
    """The functions of the running kernel."""

    def __init__(self) -> None:
        table = FunctionTable.from_kernel(Tracefs.find().root)
        needed = ("bpf_kprobe_multi_link_attach", "register_fprobe_ips")
        self.kernel_has_links = all(table.symbol_address(name) is not None for name in needed)
        everything = table.matching(lambda _name: True, modules={""})
        seen = Counter(function.name for function in everything)
        self._good = [
            function
            for function in everything
            # Some tools refuse an ambiguous name.
            if seen[function.name] == 1
            and "." not in function.name
            and table.is_traceable(function)
            and not table.is_blacklisted(function.address)
            and not table.is_init(function.address)
        ]

    def find(self, name: str) -> Function:
        """The function of this name."""
        for function in self._good:
            if function.name == name:
                return function
        raise RuntimeError(f"{name} cannot be probed")

    def choose_for_bcc(self, count: int, candidates: Iterable[str]) -> FunctionSet:
        """About `count` functions for a tool that ends at the first that it cannot probe.

        `candidates` are the functions that bcc looks for matches in.
        """
        known = set(candidates)
        good = [function for function in self._good if function.name in known]
        names = [function.name for function in good]
        pattern = best_prefixes(names, known - set(names), count)
        prefixes = tuple(pattern.strip("()*").split("|"))
        return FunctionSet(pattern, [f for f in good if f.name.startswith(prefixes)])

    def choose(self, count: int) -> FunctionSet:
        """About `count` functions, by one glob: bpftrace makes one link per glob."""
        if count == 1:
            return FunctionSet(_ONE, [f for f in self._good if f.name == _ONE])
        if count >= len(self._good):
            return FunctionSet("*", self._good)
        glob = best_glob([function.name for function in self._good], count)
        part = glob.strip("*")
        if glob.startswith("*"):
            return FunctionSet(glob, [f for f in self._good if part in f.name])
        return FunctionSet(glob, [f for f in self._good if f.name.startswith(part)])


def best_prefixes(names: Iterable[str], others: Iterable[str], count: int) -> str:
    """A pattern of about `count` of the names and none of the others.

    bcc only replaces the `*` of a glob, so the rest may be a regular expression.
    """
    found = Counter(_first_word(name) for name in names)
    for word in {_first_word(name) for name in others} | {""}:
        found.pop(word, None)
    chosen = []
    for word, size in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if size <= count:
            chosen.append(word)
            count -= size
    return f"({'|'.join(chosen)})*"


def _first_word(name: str) -> str:
    """What ends with the first underscore; empty if nothing is before it."""
    word, underscore, _ = name.partition("_")
    return word + underscore if word and underscore else ""


def best_glob(names: Sequence[str], count: int) -> str:
    """The glob whose number of matches is nearest to `count`; prefixes first."""
    found: Counter[str] = Counter()
    for name in names:
        found.update(_globs(name))
    return min(found, key=lambda glob: (abs(found[glob] - count), glob.startswith("*"), glob))


def _globs(name: str) -> Iterable[str]:
    def prefixes() -> Iterator[str]:
        for size in range(1, min(len(name), 8)):
            yield f"{name[:size]}*"

    parts = {f"*{name[at : at + size]}*" for size in (1, 2) for at in range(len(name) - size + 1)}
    return [*prefixes(), *parts]
