# SPDX-License-Identifier: Apache-2.0
"""How functions tell an error: see bpf/results.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchprobe._util.counted import counted
from batchprobe.actions.event_records import can_be_error
from batchprobe.functions.kernel_symbols import KernelSymbols
from batchprobe.functions.signatures import NoTypesError, Signatures, signatures_of
from batchprobe.functions.targets import Target
from batchprobe.functions.value_types import ValueKind, ValueType
from batchprobe.probe import Probe
from batchprobe.programs.maps import MapSpec
from batchprobe.programs.probe_maps import ProbeMaps

__all__ = ["Results"]

# As in bpf/results.h.
_IS_INT, _IS_LONG, _IS_UNKNOWN = 1, 2, 3
_LONG_SIZE = 8


class Results:
    """Which functions can return an error, and as what."""

    def __init__(self) -> None:
        self._signatures: Signatures | None = None
        self._kinds: dict[Target, int] = {}
        self.untyped: dict[str, str] = {}
        """Functions whose result may be an int or a long, and why that is unknown."""

    def prepare(self, targets: Sequence[Target], symbols: KernelSymbols) -> Mapping[Target, str]:
        """Look at the types of these functions; returns those that return no error."""
        if self._signatures is None:
            self._signatures = signatures_of(symbols)
        refused = {}
        for target in targets:
            try:
                result = self._signatures.of(target.name, target.module).result
            except NoTypesError as error:
                self.untyped[target.label] = str(error)
                self._kinds[target] = _IS_UNKNOWN
                continue
            if result is None:
                refused[target] = "it returns nothing"
            elif kind := _kind(result):
                self._kinds[target] = kind
            else:
                refused[target] = f"it returns no error but {result.name}"
        return refused

    def notes(self) -> Sequence[str]:
        """For which functions it was guessed what is an error."""
        if not self.untyped:
            return ()
        labels = list(self.untyped)
        return [
            f"{counted(len(labels), 'function')} of unknown type ({labels[0]}: "
            f"{self.untyped[labels[0]]}): a negative int or long was taken as an error"
        ]

    @staticmethod
    def map(slots: int) -> MapSpec:
        """Where the programs find it."""
        return MapSpec.array("results", slots + 1)

    def fill(self, maps: ProbeMaps, probes: Sequence[Probe]) -> None:
        """Tell the programs."""
        results = maps.arrays["results"]
        if results is not None:
            for probe in probes:
                results.cells[probe.slot] = self._kinds.get(probe.target, 0)


def _kind(result: ValueType) -> int:
    if not can_be_error(result):
        return 0
    is_int = result.kind is ValueKind.INTEGER and result.size < _LONG_SIZE
    return _IS_INT if is_int else _IS_LONG
