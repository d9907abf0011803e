# SPDX-License-Identifier: Apache-2.0
"""Arguments of system calls, from the layout of their trace events."""

from __future__ import annotations

import pytest

from batchprobe.arch import adapter
from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.functions.signatures import Parameter, Signature
from batchprobe.functions.syscall_arguments import with_syscall_arguments
from batchprobe.functions.value_types import ValueKind, ValueType

X86 = adapter("x86_64")
REGISTERS = ValueType("const struct pt_regs *", ValueKind.POINTER, 8)
LONG = ValueType("long", ValueKind.INTEGER, 8, is_signed=True)
OF_REGISTERS = Signature((Parameter("regs", REGISTERS, 5),), LONG, False, 6, None)
# As Linux 6.1 has it.
OPENAT = """\
name: sys_enter_openat
ID: 631
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;
\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;
\tfield:int flags;\toffset:32;\tsize:8;\tsigned:0;
\tfield:umode_t mode;\toffset:40;\tsize:8;\tsigned:0;

print fmt: "dfd: 0x%08lx", ((unsigned long)(REC->dfd))
"""


def read(group: str, event: str) -> str:
    assert (group, event) == ("syscalls", "sys_enter_openat")
    return OPENAT


def never(group: str, event: str) -> str:
    raise AssertionError(f"{group}/{event} was read")


def test_names_and_types() -> None:
    found = with_syscall_arguments(OF_REGISTERS, "__x64_sys_openat", X86, read)
    assert [
        (one.name, one.type.name, one.type.kind, one.type.size) for one in found.parameters
    ] == [
        ("dfd", "int", ValueKind.INTEGER, 4),
        ("filename", "const char *", ValueKind.STRING, 8),
        ("flags", "int", ValueKind.INTEGER, 4),
        ("mode", "umode_t", ValueKind.INTEGER, 2),
    ]
    assert [one.type.is_signed for one in found.parameters] == [True, False, True, False]
    # Each is read from the registers of user space.
    assert [one.parameter for one in found.accesses] == [0] * 4
    assert [one.steps for one in found.accesses] == [(at,) for at in X86.syscall_arguments[:4]]
    assert found.result == LONG


def test_what_arguments_point_to_is_no_argument() -> None:
    # As Linux 7.0 has it.
    layout = OPENAT.replace(
        "\n\nprint",
        "\n\tfield:__data_loc char[] __filename_val;\toffset:48;\tsize:4;\tsigned:0;\n\nprint",
    )
    assert layout != OPENAT
    found = with_syscall_arguments(OF_REGISTERS, "__x64_sys_openat", X86, lambda *_: layout)
    assert [one.name for one in found.parameters] == ["dfd", "filename", "flags", "mode"]


def test_the_prototype_is_that_of_the_call() -> None:
    signature = OF_REGISTERS._replace(number=7)
    assert with_syscall_arguments(signature, "__x64_sys_openat", X86, read).number == 0
    assert with_syscall_arguments(signature, "vfs_read", X86, never).number == 7


def test_other_functions_are_as_they_were() -> None:
    plain = Signature((Parameter("count", LONG, 5),), LONG, False, 6, None)
    for signature, name, machine in [
        (OF_REGISTERS, "vfs_read", X86),
        (plain, "__x64_sys_openat", X86),
        (OF_REGISTERS, "sys_openat", adapter("arm")),
    ]:
        assert with_syscall_arguments(signature, name, machine, never) is signature


@pytest.mark.parametrize(
    "error", [KernelError("open", 2), UnsupportedError("tracefs is not mounted", remedy="mount it")]
)
def test_without_the_trace_event(error: Exception) -> None:
    def fail(_group: str, _event: str) -> str:
        raise error

    found = with_syscall_arguments(OF_REGISTERS, "__x64_sys_openat", X86, fail)
    assert found is OF_REGISTERS


def test_what_has_no_fields_takes_nothing() -> None:
    layout = OPENAT.partition("\tfield:int dfd")[0]
    found = with_syscall_arguments(OF_REGISTERS, "__x64_sys_sync", X86, lambda *_: layout)
    assert (found.parameters, found.accesses) == ((), ())
