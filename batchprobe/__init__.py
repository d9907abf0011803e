"""Probes on thousands of kernel functions, and all off again in one batch.

from batchprobe import Session

with Session() as session:
    probes = session.attach(["tcp_*", "vfs_read%return"])
    ...
    session.detach(probes[:10])
    report = session.commit()
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.commit.queue import CommitReport, Left
    from batchprobe.errors import (
        AttachCancelledError,
        BatchprobeError,
        KernelError,
        NotAttachedError,
        NothingAttachedError,
        SessionError,
        SpecError,
        UnsupportedError,
    )
    from batchprobe.funclist.spec import ProbeSpec, parse_list
    from batchprobe.functions.targets import Reason, Skipped
    from batchprobe.probe import Probe, ProbeState
    from batchprobe.session import Session

__all__ = [
    "AttachCancelledError",
    "BatchprobeError",
    "CommitReport",
    "KernelError",
    "Left",
    "NotAttachedError",
    "NothingAttachedError",
    "Probe",
    "ProbeSpec",
    "ProbeState",
    "Reason",
    "Session",
    "SessionError",
    "Skipped",
    "SpecError",
    "UnsupportedError",
    "parse_list",
]

__version__ = "0.1.0"

_HOMES = ("commit.queue", "errors", "functions.targets", "probe", "session", "funclist.spec")


def __getattr__(name: str) -> object:
    # Loaded when first asked for: the command must answer Ctrl-C before it has imported much, and
    # the guardian needs little of the package.
    if name in __all__:
        from importlib import import_module  # noqa: PLC0415  (takes longer than it looks)

        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name in module.__all__:
                value: object = getattr(module, name)
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
