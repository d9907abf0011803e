# SPDX-License-Identifier: Apache-2.0
"""The seam: functions of bcc's C library that its Python code calls.

All attaches of bcc's Python end in `bpf_attach_kprobe`, all detaches in `bpf_close_perf_event_fd`
and `bpf_detach_kprobe`, with the same names and signatures from bcc 0.12 on. So nothing of bcc's
own accounting, quotas and exceptions changes when these three are replaced.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from batchprobe.errors import bcc_is_missing
from batchprobe.programs.user_program import UserProgram, load_with_bcc
from batchprobe.sys.bpf import PROG_TYPE_KPROBE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Library"]

# The calls that read what programs recorded.
_READS = (
    "bpf_consume_ringbuf",
    "bpf_get_first_key",
    "bpf_get_next_key",
    "bpf_lookup_and_delete",
    "bpf_lookup_and_delete_batch",
    "bpf_lookup_batch",
    "bpf_lookup_elem",
    "bpf_poll_ringbuf",
    "perf_reader_consume",
    "perf_reader_poll",
)
# What else bcc attaches, in the words of a summary. Some releases lack some of these calls.
_OTHERS = {
    "bpf_attach_kfunc": "fentry program",
    "bpf_attach_lsm": "LSM program",
    "bpf_attach_perf_event": "perf event",
    "bpf_attach_perf_event_raw": "perf event",
    "bpf_attach_raw_tracepoint": "tracepoint",
    "bpf_attach_tracepoint": "tracepoint",
    "bpf_attach_uprobe": "uprobe",
}
# The arguments of bcc_func_load() before the attach type, the last one since bcc 0.19.
_LOAD_ARGUMENTS = 11


class Library:
    """bcc's C library, whose functions can be replaced and put back.

    Raises UnsupportedError without bcc.
    """

    def __init__(self) -> None:
        try:
            from bcc import lib  # noqa: PLC0415  (the distribution's; absent on many machines)
        except ImportError as error:
            raise bcc_is_missing(str(error)) from error
        self._lib = lib
        self._originals: dict[str, Any] = {}
        self._loads: dict[int, tuple[Any, ...]] = {}
        self._programs: dict[int, UserProgram] = {}
        self.has_loaded = False
        """Whether bcc loaded a program since the functions were replaced."""
        self.attach = lib.bpf_attach_kprobe
        self.close = lib.bpf_close_perf_event_fd
        self.detach = lib.bpf_detach_kprobe

    def replace(
        self,
        *,
        attach: Callable[..., int],
        close: Callable[[int], int],
        detach: Callable[[bytes], int],
        before_read: Callable[[], None],
    ) -> None:
        """Call these instead of `attach`, `close` and `detach`, and `before_read` before results
        are read.
        """
        self._set("bpf_attach_kprobe", attach)
        self._set("bpf_close_perf_event_fd", close)
        self._set("bpf_detach_kprobe", detach)
        self._set("bcc_func_load", self._noting_loads(self._lib.bcc_func_load))
        for name in _READS:
            if hasattr(self._lib, name):
                self._set(name, _after(before_read, getattr(self._lib, name)))

    def note_others(self, note: Callable[[str], None]) -> None:
        """Call `note` with the kind of each attach that succeeds and is no kprobe."""
        for name, kind in _OTHERS.items():
            if hasattr(self._lib, name):
                self._set(name, _noting(note, kind, getattr(self._lib, name)))

    def restore(self) -> None:
        """Put the library's own functions back."""
        for name, original in self._originals.items():
            setattr(self._lib, name, original)
        self._originals.clear()

    def ignore(self, is_token: Callable[[int], bool]) -> None:
        """After `restore`: close no descriptor that is a token. bcc holds those of kprobes that it
        has not detached, and would take the error for its own.
        """
        close = self.close
        self._lib.bpf_close_perf_event_fd = lambda fd: 0 if is_token(fd) else close(fd)

    def _set(self, name: str, function: Callable[..., Any]) -> None:
        self._originals[name] = getattr(self._lib, name)
        setattr(self._lib, name, function)

    def _noting_loads(self, load: Callable[..., int]) -> Callable[..., int]:
        def noting(*arguments: Any) -> int:
            fd = load(*arguments)
            self.has_loaded = True
            if fd >= 0 and arguments[1] == PROG_TYPE_KPROBE:
                # The descriptor may have been that of another program before.
                self._programs.pop(fd, None)
                self._loads[fd] = arguments
            return fd

        return noting

    def program(self, fd: int) -> UserProgram:
        """The program that bcc loaded with this descriptor: the same object for each call."""
        if fd not in self._programs:
            self._programs[fd] = self._program(fd)
        return self._programs[fd]

    def _program(self, fd: int) -> UserProgram:
        arguments = self._loads.get(fd)
        if arguments is None:
            return UserProgram(f"program {fd}", fd)
        _, _, name, start, size, *_ = arguments
        load = None
        if len(arguments) > _LOAD_ARGUMENTS:
            first = arguments[:_LOAD_ARGUMENTS]

            def load(attach_type: int) -> int:
                return load_with_bcc(self._original_load(), first, attach_type)

        return UserProgram(name.decode(), fd, code=ctypes.string_at(start, size), load=load)

    def _original_load(self) -> Any:
        return self._originals.get("bcc_func_load", self._lib.bcc_func_load)


def _noting(
    note: Callable[[str], None], kind: str, attach: Callable[..., int]
) -> Callable[..., int]:
    def noting(*arguments: Any) -> int:
        fd = attach(*arguments)
        if fd >= 0:
            note(kind)
        return fd

    return noting


def _after(before: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        before()
        return function(*arguments)

    return call
