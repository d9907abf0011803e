# SPDX-License-Identifier: Apache-2.0
"""Child process that compiles programs with bcc and prints their bytecode.

A process of its own, so that Ctrl-C need not wait for clang, the parent reads kallsyms meanwhile,
and clang's memory is gone before tracing begins. stdin: a ProgramSource as JSON.
"""

from __future__ import annotations

import json
import re
import signal
import struct
import sys
from ctypes import CDLL

from batchprobe.programs.program import OFFSETS, Program, to_text

__all__ = ["BAD_SOURCE", "main"]

BAD_SOURCE = 3
"""Exit status: the C of an action or a filter must be changed."""

# include/uapi/linux/bpf.h, bpf_common.h
_INSTRUCTION_SIZE = 8
_LD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1
_LDX = 0x01
_RSH = frozenset({0x74, 0x77})  # by an immediate, 32 and 64 bits
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def main() -> int:
    """Print the programs as `batchprobe.programs.program.to_text` does."""
    # clang takes seconds, in vain once the parent was killed.
    CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from bcc import BPF, lib  # noqa: PLC0415  (the distribution's; absent on many machines)

    request = json.load(sys.stdin)
    text, names = request["text"], {v: k for k, v in request["placeholders"].items()}
    # bcc's own warnings about the text are no use to a tracer.
    module = BPF(text=text, cflags=["-w"])
    maps = {
        lib.bpf_table_fd(module.module, name.encode()): name
        for name in re.findall(r"^BPF_[A-Z_]+\((\w+)", text, re.MULTILINE)
    }
    programs = []
    for program in request["programs"]:
        code = bytearray(module.dump_func(program.encode()))
        operands = []
        for at in range(0, len(code), _INSTRUCTION_SIZE):
            try:
                name = _operand(code, at, maps, names)
            except KeyError:
                print("declare maps as BPF_ARRAY(NAME, ...), BPF_HASH(NAME, ...)", file=sys.stderr)
                return BAD_SOURCE
            if name:
                operands.append((at // _INSTRUCTION_SIZE, name))
        found = {name for _, name in operands}
        # Some are of one end of a call only.
        required = request["at_return" if program.startswith("return_") else "required"]
        if lost := [name for name in required if name not in found]:
            print(
                f"{program} has no operand {', '.join(lost)}: a constant must be used as it is, "
                "in a comparison for (in)equality or an assignment",
                file=sys.stderr,
            )
            return BAD_SOURCE
        programs.append(Program(program, bytes(code), tuple(operands)))
    print(to_text(programs), end="")
    return 0


def _operand(code: bytearray, at: int, maps: dict[int, str], names: dict[int, str]) -> str | None:
    """The map or constant that the instruction at this offset needs; its placeholder is cleared."""
    operation, registers, offset, immediate = struct.unpack_from("=BBhi", code, at)
    source = registers >> 4 if sys.byteorder == "little" else registers & 0xF
    if operation == _LD_IMM64 and source == _PSEUDO_MAP_FD:
        # The compiler's descriptor means nothing in another process.
        struct.pack_into("=i", code, at + 4, 0)
        return maps[immediate]
    if operation & 0x07 == _LDX:
        if names.get(offset) not in OFFSETS:
            return None
        struct.pack_into("=h", code, at + 2, 0)
        return names[offset]
    name = names.get(immediate)
    if name is None or (operation in _RSH) != (name == "BUCKET_SHIFT"):
        return None
    struct.pack_into("=i", code, at + 4, 0)
    return name


if __name__ == "__main__":
    sys.exit(main())
