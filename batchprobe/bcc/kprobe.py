# SPDX-License-Identifier: Apache-2.0
"""A kprobe as bcc asks for it."""

from __future__ import annotations

from batchprobe.probe import Probe
from batchprobe.programs.user_program import UserProgram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Kprobe"]


class Kprobe:
    """One call of bpf_attach_kprobe(), and what became of it."""

    __slots__ = ("address", "arguments", "is_closed", "native_fd", "probe", "program")

    def __init__(self, program: UserProgram, arguments: tuple[Any, ...], address: int = 0) -> None:
        self.program = program
        self.arguments = arguments
        """Of the call: descriptor, 1 for a return probe, bcc's event name, function, offset,
        maxactive.
        """
        self.address = address
        """Of the probe; 0 if it is not known."""
        self.probe: Probe | None = None
        """Once it is armed."""
        self.native_fd = -1
        """The perf event, if the kprobe was left to bcc after all."""
        self.is_closed = False
        """Whether bcc has detached it."""

    @property
    def is_return(self) -> bool:
        """Whether it is a kretprobe."""
        return bool(self.arguments[1])

    @property
    def function(self) -> str:
        """The function's name, with its module if bcc gave one."""
        name: bytes = self.arguments[3]
        return name.decode()

    @property
    def offset(self) -> int:
        """Bytes from the function's start."""
        offset: int = self.arguments[4]
        return offset

    @property
    def max_active(self) -> int:
        """The number of calls that a kretprobe can follow at once; 0 is the kernel's choice."""
        number: int = self.arguments[5]
        return number
