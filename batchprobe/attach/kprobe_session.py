# SPDX-License-Identifier: Apache-2.0
"""`multi` for both ends of calls: a session, one link for entry and return (Linux 6.10)."""

from __future__ import annotations

from collections.abc import Sequence

from batchprobe.attach.base import AttachContext
from batchprobe.attach.kprobe_multi import MultiAttachment
from batchprobe.kernel.btf import kernel_btf
from batchprobe.probe import Probe
from batchprobe.sys import bpf

__all__ = ["SessionAttachment", "is_return_id"]

# A function for programs; it returns at which end of a call they run.
_IS_RETURN = "bpf_session_is_return"


def is_return_id() -> int:
    """What the programs of sessions need, as `programs.program.SESSION_IS_RETURN`.

    Raises UnsupportedError where the kernel has no sessions or no BTF, KernelError if that cannot
    be read.
    """
    with kernel_btf() as btf:
        return btf.function(_IS_RETURN)


class SessionAttachment(MultiAttachment):
    """A link whose program runs at the entry and, if the entry counts, at the return.

    It stays until all its probes are gone, because a call returns in the link of its entry.
    """

    attach_type = bpf.BPF_TRACE_KPROBE_SESSION
    entry_program = "by_session"

    def __init__(self, probes: Sequence[Probe], context: AttachContext) -> None:
        super().__init__(probes, context, is_return=False)

    def attach(self, context: AttachContext) -> None:
        self.maps.stack_moves = context.stack_moves
        self.maps.session_is_return = context.session_is_return
        super().attach(context)
