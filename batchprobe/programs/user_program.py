# SPDX-License-Identifier: Apache-2.0
"""A kprobe program that a caller loaded, and that our dispatcher calls.

The dispatcher finds the slot of a hit, tests its gate and calls the program by bpf_tail_call(). The
kernel allows that among programs of one type, and since Linux 6.18 and in later stable kernels of
one expected_attach_type (bpf_prog_map_compatible(), kernel/bpf/core.c). Where it allows more, a
program that asks for its function in a link reads a wrong context. So a link gets a copy that is
loaded for links.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batchprobe.errors import KernelError
from batchprobe.sys import bpf, fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["UserProgram", "load_with_bcc"]

_CALL = 0x85  # BPF_JMP | BPF_CALL, include/uapi/linux/bpf.h
# enum bpf_func_id, include/uapi/linux/bpf.h
_OVERRIDE_RETURN = 58
_GET_FUNC_IP = 173
_WRONG_TYPE = "it is not of the type BPF_PROG_TYPE_KPROBE"
_WRONG_KIND = (
    "our program cannot call it: it was loaded for another attach type, or only one of the two is "
    "compiled (net.core.bpf_jit_enable)"
)


def load_with_bcc(load: Callable[..., int], arguments: tuple[Any, ...], attach_type: int) -> int:
    """Load a program with `load`, bcc's bcc_func_load(), whose last argument is the
    expected_attach_type; returns its descriptor. `arguments` are all others. Raises KernelError.
    """
    fd = load(*arguments, attach_type)
    if fd < 0:
        import ctypes  # noqa: PLC0415  (bcc has imported it)

        name = arguments[2].decode()
        raise KernelError(f"bcc_func_load({name})", ctypes.get_errno() or errno.EINVAL)
    return fd


class UserProgram:
    """A loaded program of the type BPF_PROG_TYPE_KPROBE."""

    def __init__(
        self,
        name: str,
        fd: int,
        *,
        code: bytes = b"",
        load: Callable[[int], int] | None = None,
    ) -> None:
        """`code` are its instructions, if known. `load` loads it again for an expected_attach_type,
        and returns the descriptor.
        """
        self.name = name
        self.fd = fd
        self._load = load
        calls = _helpers(code)
        self.overrides_return = _OVERRIDE_RETURN in calls
        """Whether it calls bpf_override_return(), which no program may that is called by another
        (bpf_prog_map_compatible(), kernel/bpf/core.c).
        """
        self.needs_entry = _GET_FUNC_IP in calls
        """Whether it calls bpf_get_func_ip(), which returns 0 behind the entry patch site."""

    @classmethod
    def of(cls, program: object) -> UserProgram:
        """The program that a caller gives: a function of bcc's `BPF.load_func`, or a descriptor.

        Raises TypeError for anything else.
        """
        if isinstance(program, cls):
            return program
        if isinstance(program, int):
            return cls(f"program {program}", program)
        if all(hasattr(program, name) for name in ("bpf", "name", "fd")):
            return cls._of_bcc(program)
        raise TypeError(f"not a function of bcc's BPF.load_func, nor a descriptor: {program!r}")

    @classmethod
    def _of_bcc(cls, function: Any) -> UserProgram:
        # Not that of the BPF object, whose class may be derived from bcc's.
        bcc = sys.modules[type(function).__module__]
        library, module, name = bcc.lib, function.bpf.module, function.name

        arguments = (
            *(module, bpf.PROG_TYPE_KPROBE, name),
            *(library.bpf_function_start(module, name), library.bpf_function_size(module, name)),
            *(library.bpf_module_license(module), library.bpf_module_kern_version(module)),
            *(0, None, 0, None),
        )
        return cls(
            name.decode(),
            function.fd,
            code=function.bpf.dump_func(name),
            load=lambda attach_type: load_with_bcc(library.bcc_func_load, arguments, attach_type),
        )

    @contextmanager
    def loaded_for(self, attach_type: int) -> Iterator[int]:
        """A descriptor of the program for this expected_attach_type; of a copy if that is not 0.

        Raises KernelError.
        """
        if not attach_type:
            yield self.fd
            return
        load = self._load
        if not self._is_kprobe:
            raise self._error(_WRONG_TYPE)
        if load is None:
            raise self._error("only its descriptor is known, and a link needs a copy of it")
        fd = fds.open_noted(lambda: load(attach_type))
        try:
            yield fd
        finally:
            # The map of programs keeps it.
            fds.close(fd)

    def explain(self, error: KernelError) -> KernelError:
        """The error to report where the kernel does not let our program call this one."""
        if error.errno != errno.EINVAL:
            return error
        if self.overrides_return:
            return self._error("no other program may call one that calls bpf_override_return()")
        if not self._is_kprobe:
            return self._error(_WRONG_TYPE)
        return self._error(_WRONG_KIND)

    @property
    def _is_kprobe(self) -> bool:
        return bpf.prog_type(self.fd) == bpf.PROG_TYPE_KPROBE

    def _error(self, why: str) -> KernelError:
        return KernelError(f"{self.name}: {why}", errno.EINVAL)


def _helpers(code: bytes) -> set[int]:
    """The helpers that a program calls (enum bpf_func_id)."""
    calls = struct.iter_unpack("=BBhi", code)
    return {
        helper for operation, registers, _, helper in calls if (operation, registers) == (_CALL, 0)
    }
