# SPDX-License-Identifier: Apache-2.0
"""Arguments of system calls, whose functions get a pointer to the registers of user space.

Their names and types are those of the trace event sys_enter_NAME, because BTF knows only the
pointer (ARCH_HAS_SYSCALL_WRAPPER).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from batchprobe.arch import Arch
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.functions.member_path import Access
from batchprobe.functions.signatures import Parameter, Signature
from batchprobe.functions.value_types import ValueKind, ValueType

__all__ = ["with_syscall_arguments"]

_FIELD = re.compile(r"\tfield:(?P<type>[^;]*?)(?P<name>\w+);\toffset:\d+;\tsize:\d+;\tsigned:\d;")
# The last field before those of arguments: the number of the call.
_NO_ARGUMENTS = "__syscall_nr"
# Since Linux 7.0 fields follow them for what some arguments point to.
_NO_ARGUMENT = "__data_loc"
# The event says 8 bytes of all of them. What is not here is shown as an address is.
_SIGNED = {"int": 4, "long": 8, "pid_t": 4, "key_t": 4, "clockid_t": 4, "timer_t": 4, "loff_t": 8}
_SIGNED |= {"off_t": 8, "ssize_t": 8, "rwf_t": 4, "mqd_t": 4, "key_serial_t": 4, "__s32": 4}
_UNSIGNED = {"unsigned int": 4, "unsigned": 4, "unsigned long": 8, "size_t": 8, "umode_t": 2}
_UNSIGNED |= {"uid_t": 4, "gid_t": 4, "u32": 4, "__u32": 4, "u64": 8, "__u64": 8, "qid_t": 4}
_REGISTERS = "struct pt_regs *"


def with_syscall_arguments(
    signature: Signature, name: str, arch: Arch, read_format: Callable[[str, str], str]
) -> Signature:
    """The signature of a system call's function, with the arguments of the call.

    `read_format` reads the layout of a trace event, by group and name. Any other signature is
    returned as it is, and all are without tracefs or such events (CONFIG_FTRACE_SYSCALLS).
    """
    call = _call(name, arch)
    takes_registers = [one.type.name.removeprefix("const ") for one in signature.parameters]
    if not call or not arch.syscall_arguments or takes_registers != [_REGISTERS]:
        return signature
    try:
        text = read_format("syscalls", f"sys_enter_{call}")
    except (KernelError, UnsupportedError):
        return signature
    parameters = list(_parameters(text))[: len(arch.syscall_arguments)]
    return signature._replace(
        parameters=tuple(parameters),
        # Other functions of this prototype have other arguments.
        number=0,
        accesses=tuple(
            Access(0, (offset,), one.type, 0, 8 * one.type.size)
            for one, offset in zip(parameters, arch.syscall_arguments, strict=False)
        ),
    )


def _call(name: str, arch: Arch) -> str:
    """The system call that a function carries out; empty if it is none."""
    for prefix in arch.syscall_prefixes:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return ""


def _parameters(text: str) -> Iterator[Parameter]:
    _, found, fields = text.partition(f"{_NO_ARGUMENTS};")
    for field in _FIELD.finditer(fields) if found else ():
        if field["type"].startswith(_NO_ARGUMENT):
            return
        yield Parameter(field["name"], _type(field["type"].strip()), 0)


def _type(name: str) -> ValueType:
    if name.endswith("*"):
        is_text = name.removesuffix("*").split() in (["char"], ["const", "char"])
        return ValueType(name, ValueKind.STRING if is_text else ValueKind.POINTER, 8)
    if name in _SIGNED:
        return ValueType(name, ValueKind.INTEGER, _SIGNED[name], is_signed=True)
    if name in _UNSIGNED:
        return ValueType(name, ValueKind.INTEGER, _UNSIGNED[name])
    return ValueType(name, ValueKind.POINTER, 8)
