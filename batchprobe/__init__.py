# SPDX-License-Identifier: Apache-2.0
"""Kprobes on thousands of kernel functions, detached in one batch.

from batchprobe import Session

with Session() as session:
    probes = session.attach(["tcp_*", "vfs_read%return"])
    ...
    session.detach(probes[:10])
    report = session.commit()

`docs/architecture.md` describes the packages below.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.actions.base import Action as Action
    from batchprobe.actions.base import Column as Column
    from batchprobe.actions.base import RawEvent as RawEvent
    from batchprobe.actions.base import Reader as Reader
    from batchprobe.actions.count import Count as Count
    from batchprobe.commit.queue import CommitReport as CommitReport
    from batchprobe.commit.queue import RemovalFailure as RemovalFailure
    from batchprobe.errors import AttachCancelledError as AttachCancelledError
    from batchprobe.errors import BatchprobeError as BatchprobeError
    from batchprobe.errors import KernelError as KernelError
    from batchprobe.errors import ListError as ListError
    from batchprobe.errors import NotAttachedError as NotAttachedError
    from batchprobe.errors import NothingAttachedError as NothingAttachedError
    from batchprobe.errors import SessionError as SessionError
    from batchprobe.errors import SpecError as SpecError
    from batchprobe.errors import UnsupportedError as UnsupportedError
    from batchprobe.errors import UsageError as UsageError
    from batchprobe.errors import VerifierError as VerifierError
    from batchprobe.filters.base import Filter as Filter
    from batchprobe.filters.base import ProbeKind as ProbeKind
    from batchprobe.funclist.parse import parse_list as parse_list
    from batchprobe.funclist.spec import ProbeSpec as ProbeSpec
    from batchprobe.functions.targets import Reason as Reason
    from batchprobe.functions.targets import Skipped as Skipped
    from batchprobe.probe import Event as Event
    from batchprobe.probe import Probe as Probe
    from batchprobe.probe import ProbeState as ProbeState
    from batchprobe.probe import Snapshot as Snapshot
    from batchprobe.programs.maps import MapSpec as MapSpec
    from batchprobe.programs.maps import SlotLayout as SlotLayout
    from batchprobe.programs.probe_maps import Hits as Hits
    from batchprobe.programs.probe_maps import ProbeMaps as ProbeMaps
    from batchprobe.session import Session as Session

__version__ = "0.2.0.dev0"

# Where each public name is defined. A module is imported when one of its names is first used,
# because the command has to answer Ctrl-C before it has imported much, and the guardian needs
# little of the package.
_PUBLIC = {
    "actions.base": ("Action", "Column", "RawEvent", "Reader"),
    "actions.count": ("Count",),
    "commit.queue": ("CommitReport", "RemovalFailure"),
    "errors": (
        "AttachCancelledError",
        "BatchprobeError",
        "KernelError",
        "ListError",
        "NotAttachedError",
        "NothingAttachedError",
        "SessionError",
        "SpecError",
        "UnsupportedError",
        "UsageError",
        "VerifierError",
    ),
    "filters.base": ("Filter", "ProbeKind"),
    "funclist.parse": ("parse_list",),
    "funclist.spec": ("ProbeSpec",),
    "functions.targets": ("Reason", "Skipped"),
    "probe": ("Event", "Probe", "ProbeState", "Snapshot"),
    "programs.maps": ("MapSpec", "SlotLayout"),
    "programs.probe_maps": ("Hits", "ProbeMaps"),
    "session": ("Session",),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
