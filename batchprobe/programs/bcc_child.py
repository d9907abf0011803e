"""Child process: compiles the programs of bpf/ with bcc and prints them as JSON.

A process of its own, so that Ctrl-C need not wait for clang, the parent reads kallsyms meanwhile,
and clang's memory is gone when the probing starts. Reads C from stdin, and the names of the
programs from its arguments.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from ctypes import CDLL

__all__ = ["main"]

INSTRUCTION_SIZE = 8
LD_IMM64 = 0x18
PSEUDO_MAP_FD = 1
# BPF_ALU | BPF_RSH | BPF_K, and that of 64 bits.
RSH = frozenset({0x74, 0x77})
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def main() -> int:
    """Print {program: {"code": hex, "maps": ..., "constants": ...}} on stdout, each of both a list
    of pairs: an instruction, and what its operand is to be.
    """
    # clang takes seconds, for nobody once the parent was killed.
    CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from bcc import BPF, lib  # noqa: PLC0415  (slow, and absent on many machines)

    # The programs have no debug info to name variables by, and a warning is no use to a tracer.
    source = sys.stdin.read()
    module = BPF(text=source, cflags=["-w"])
    maps = re.findall(r"^BPF_(?:ARRAY|HASH)\((\w+)", source, re.MULTILINE)
    map_of_fd = {lib.bpf_table_fd(module.module, name.encode()): name for name in maps}
    names = re.findall(r"^#define (PLACE_SHIFT|EPOCH) (\d+)$", source, re.MULTILINE)
    constants = {int(value): name for name, value in names}
    result = {}
    for name in sys.argv[1:]:
        code = bytearray(module.dump_func(name.encode()))
        loads, found = [], []
        for at in range(0, len(code), INSTRUCTION_SIZE):
            # struct bpf_insn: code u8, registers u8 (two nibbles), off s16, imm s32
            kind = code[at + 1] >> 4 if sys.byteorder == "little" else code[at + 1] & 0xF
            operand = int.from_bytes(code[at + 4 : at + 8], sys.byteorder)
            name_there = constants.get(operand)
            if name_there and (code[at] in RSH) == (name_there == "PLACE_SHIFT"):
                found.append([at // INSTRUCTION_SIZE, name_there])
            if code[at] == LD_IMM64 and kind == PSEUDO_MAP_FD:
                loads.append([at // INSTRUCTION_SIZE, map_of_fd[operand]])
                # The compiler's descriptor is nobody else's.
                code[at + 4 : at + 8] = bytes(4)
        result[name] = {"code": code.hex(), "maps": loads, "constants": found}
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
