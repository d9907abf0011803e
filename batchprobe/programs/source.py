# SPDX-License-Identifier: Apache-2.0
"""The C text of the programs: bpf/ with an action and its filters put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from batchprobe.arch import Arch
from batchprobe.programs.program import (
    BUCKET_SHIFT,
    EPOCH,
    HASH_BITS,
    INSTRUCTION_POINTER_AT,
    MAX_BUCKET_BITS,
)
from batchprobe.programs.shipped import BPF_FOLDER
from batchprobe.sys.files import read_text

__all__ = ["LOOKUPS", "ProgramSource", "compose"]

LOOKUPS = ("by_ip", "by_link", "by_func_ip", "by_running_kprobe")
"""The programs: one for each way to find the slot of a hit. Each is a file of bpf/."""

# Placeholders, which the compiled code must not contain for another reason. A shift is only looked
# for in shifts, the offset only in loads.
_SHIFT_PLACEHOLDER = HASH_BITS - MAX_BUCKET_BITS
_EPOCH_PLACEHOLDER = 0x45700043
_IP_PLACEHOLDER = 0x7FF0
_FIRST_PLACEHOLDER = 0x5EED0001


class ProgramSource(NamedTuple):
    """Text for the compiler, and the placeholders that stand for operands in it."""

    text: str
    placeholders: Mapping[str, int]
    """By name: the number that the compiled code has where the loader must put another."""
    required: tuple[str, ...] = ()
    """Those that every program must contain."""


def compose(
    arch: Arch,
    *,
    action: str = "",
    filters: Mapping[str, str] | None = None,
    constants: Iterable[str] = (),
) -> ProgramSource:
    """The programs for an architecture, with an action's C and with filters' C by name.

    The action's text defines `on_hit(ctx, slot, cell)`, a filter's a function of the filter's name
    that takes `ctx`. `constants` are the names of numbers that the loader fills in.
    """
    filters = filters or {}
    required = tuple(constants)
    placeholders = {
        BUCKET_SHIFT: _SHIFT_PLACEHOLDER,
        EPOCH: _EPOCH_PLACEHOLDER,
        INSTRUCTION_POINTER_AT: _IP_PLACEHOLDER,
        **{name: _FIRST_PLACEHOLDER + at for at, name in enumerate(required)},
    }
    lines = [f"#define WORD u{arch.bits}"]
    lines += [f"#define {name} {number}" for name, number in placeholders.items()]
    if arch.cpu_id_unreliable:
        lines.append("#define CELLS_ARE_SHARED")
    if action or filters:
        # For bcc's PT_REGS_PARM1() and the like.
        lines.append("#include <uapi/linux/ptrace.h>")
    if filters:
        lines.append(
            f"#define FILTERS_PASS(ctx) ({' && '.join(f'{name}(ctx)' for name in filters)})"
        )
    if action:
        lines.append("#define ON_HIT on_hit")
    texts = ["\n".join([*lines, ""]), *filters.values(), action]
    texts += [read_text(f"{BPF_FOLDER}/{name}") for name in _files()]
    return ProgramSource("".join(texts), placeholders, required)


def _files() -> list[str]:
    return ["hit.h", *(f"{lookup}.c" for lookup in LOOKUPS)]
