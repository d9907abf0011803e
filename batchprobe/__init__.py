"""Probes on thousands of kernel functions, and all off again in one batch.

from batchprobe import Session

with Session() as session:
    probes = session.attach(["tcp_*", "vfs_read%return"])
    ...
    session.detach(probes[:10])
    report = session.commit()
"""

from batchprobe.commit import CommitReport, Left
from batchprobe.errors import (
    AttachCancelledError,
    BatchprobeError,
    KernelError,
    NotAttachedError,
    NothingAttachedError,
    SpecError,
    UnsupportedError,
)
from batchprobe.kernel.targets import Reason, Skipped
from batchprobe.probe import Probe, ProbeState
from batchprobe.session import Session
from batchprobe.spec import ProbeSpec, parse_list

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
    "Skipped",
    "SpecError",
    "UnsupportedError",
    "parse_list",
]
