"""The BPF programs of bpf/, shipped as bytecode; loaded once per bank.

Where they are not shipped, or bpf/ was changed, `batchprobe.programs.compiler` makes them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from batchprobe import arch
from batchprobe.sys import bpf
from batchprobe.sys.files import read_text

if TYPE_CHECKING:
    from batchprobe.arch import Arch

__all__ = [
    "COMPILE",
    "HASH_BITS",
    "MOST_PLACE_BITS",
    "PROGRAMS",
    "Program",
    "made_of",
    "shipped",
    "source",
]

PROGRAMS = ("by_ip", "by_link", "by_func_ip", "by_running_kprobe")
COMPILE = "BATCHPROBE_COMPILE"
"""The environment variable that asks for compiling whatever is shipped."""
HASH_BITS = 32
"""Width of the product of an instruction pointer, of which the highest bits name its place."""
MOST_PLACE_BITS = 18
"""There are at most 2 to this many places, 4 MiB of them."""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_EPOCH = 1164988227  # stands for a link's
_INSTRUCTION_SIZE = 8


class Program(NamedTuple):
    """Bytecode whose maps, and some numbers, are still names."""

    name: str
    code: bytes
    # Which instruction loads the address of which map.
    maps: tuple[tuple[int, str], ...]
    # Likewise numbers: PLACE_SHIFT, EPOCH.
    constants: tuple[tuple[int, str], ...] = ()

    def load(self, operands: Mapping[str, int], *, attach_type: int = 0) -> int:
        """Load it on these maps, with these numbers; returns its fd. Raises KernelError."""
        return bpf.prog_load(self.name, self.code_with(operands), attach_type=attach_type)

    def code_with(self, operands: Mapping[str, int]) -> bytes:
        """The bytecode with these maps and numbers in it."""
        code = bytearray(self.code)
        for index, name in (*self.maps, *self.constants):
            at = index * _INSTRUCTION_SIZE + 4
            code[at : at + 4] = operands[name].to_bytes(4, sys.byteorder)
        return bytes(code)


def shipped(built_of: str | None = None) -> dict[str, Program] | None:
    """The programs that are shipped for this machine, None if there are none.

    They use no struct of the kernel's but pt_regs, and so fit every kernel of the architecture.
    They serve as long as they were built from `built_of`, or, in a checkout, from what bpf/ says.
    """
    if os.environ.get(COMPILE):
        return None
    name = arch.current().name
    try:
        found = import_module(f"{__package__}.bytecode.{name}").SHIPPED
    except ModuleNotFoundError:
        return None
    if built_of is None and not _is_installed():
        # Somebody may have changed bpf/ and not built yet.
        built_of = source()
    if built_of is not None and found["source"] != built_of.splitlines():
        return None
    return made_of(found["programs"])


def source(adapter: Arch | None = None) -> str:
    """The programs in C, for this machine or the adapter's."""
    # In a checkout it is beside the package.
    folder = f"{_PACKAGE if _is_installed() else os.path.dirname(_PACKAGE)}/bpf"
    texts = [_facts(adapter or arch.current())]
    for name in ("hit.h", *(f"{program}.c" for program in PROGRAMS)):
        texts.append(read_text(f"{folder}/{name}"))
    return "".join(texts)


def _is_installed() -> bool:
    """Whether the C sources are where a wheel has them, which nobody edits."""
    return os.path.isdir(f"{_PACKAGE}/bpf")


def _facts(adapter: Arch) -> str:
    """What the programs ask of the architecture; no header of the kernel's tells it everywhere."""
    at = adapter.registers.instruction_pointer
    shared = "#define CELLS_ARE_SHARED\n" if adapter.may_tell_wrong_cpu else ""
    return (
        f"#define WORD u{adapter.bits}\n#define INSTRUCTION_POINTER_AT {at}\n"
        f"#define PLACE_SHIFT {HASH_BITS - MOST_PLACE_BITS}\n#define EPOCH {_EPOCH}\n{shared}"
    )


def made_of(entries: Mapping[str, Any]) -> dict[str, Program]:
    """The programs that `batchprobe.programs.bcc_child` printed."""
    return {
        name: Program(
            name,
            bytes.fromhex(entry["code"]),
            tuple((index, map_name) for index, map_name in entry["maps"]),
            tuple((index, constant) for index, constant in entry["constants"]),
        )
        for name, entry in entries.items()
    }
