# SPDX-License-Identifier: Apache-2.0
"""Whether entries become entry or return probes, where the action or a filter needs one kind."""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe.filters.base import ProbeKind
from batchprobe.funclist.spec import ProbeSpec
from batchprobe.functions.targets import Reason, Skipped

__all__ = ["as_kind"]


def as_kind(
    specs: Sequence[ProbeSpec], kind: ProbeKind
) -> tuple[Sequence[ProbeSpec], list[Skipped]]:
    """The entries as probes of this kind, and those that cannot be."""
    if kind is ProbeKind.AS_LISTED:
        return specs, []
    fit: list[ProbeSpec] = []
    unfit: list[Skipped] = []
    for spec in specs:
        if spec.exclude:
            fit.append(spec)
        elif (kind in (ProbeKind.RETURN, ProbeKind.CALL) and spec.offset) or (
            kind is ProbeKind.ENTRY and spec.is_return
        ):
            detail = f"{kind.value} probes are needed here"
            unfit.append(Skipped(spec.text, spec.source, Reason.UNSUPPORTED, detail))
        else:
            fit.append(spec.with_changes(is_return=kind is ProbeKind.RETURN))
    return fit, unfit
