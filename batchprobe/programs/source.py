# SPDX-License-Identifier: Apache-2.0
"""The C text of the programs: bpf/ with an action and its filters put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from batchprobe.arch import Arch
from batchprobe.programs.program import (
    ARGUMENTS_AT,
    BUCKET_SHIFT,
    EPOCH,
    FIELD_AT,
    HASH_BITS,
    INSTRUCTION_POINTER_AT,
    MAPS_ID,
    MAX_BUCKET_BITS,
    RESULT_AT,
    SESSION_IS_RETURN,
    STACK_MOVES,
    STACK_POINTER_AT,
)
from batchprobe.programs.shipped import BPF_FOLDER
from batchprobe.sys.files import read_text

__all__ = ["CALLS", "LOOKUPS", "ProgramSource", "compose", "read_bpf", "tasks"]

LOOKUPS = ("by_ip", "by_link", "by_func_ip", "by_running_kprobe")
"""The programs: one for each way to find the slot of a hit. Each is a file of bpf/."""
CALLS = ("return_by_func_ip", "return_by_running_kprobe", "by_session")
"""Those that see calls return, for actions that look at both ends: bpf/return.h, and the program of
both ends in bpf/by_session.c."""
_TASK_FILES = ("constant.h", "task.h", "tree.h", "tree.c", "threads.c")
_TASK_PROGRAMS = (
    *("tree_newtask", "tree_free", "tree_exec", "tree_exit", "thread_free", "saved_free"),
    *("thread_exec", "saved_exec"),
    *("tree_newtask_event", "tree_free_event", "thread_free_event", "saved_free_event"),
)

# Placeholders, which the compiled code must not contain for another reason. A shift is only looked
# for in shifts, the offset only in loads.
_SHIFT_PLACEHOLDER = HASH_BITS - MAX_BUCKET_BITS
_EPOCH_PLACEHOLDER = 0x45700043
_IP_PLACEHOLDER = 0x7FF0
_FIELD_PLACEHOLDER = 0x7FE0
_STACK_PLACEHOLDER = 0x7FD0
_REGISTERS_PLACEHOLDER = 0x7F00
_MAPS_PLACEHOLDER = 0x45700044
_MOVES_PLACEHOLDER = 0x45700045
_SESSION_PLACEHOLDER = 0x45700046
_FIRST_PLACEHOLDER = 0x5EED0001


class ProgramSource(NamedTuple):
    """Text for the compiler, and the placeholders that stand for operands in it."""

    text: str
    placeholders: Mapping[str, int]
    """By name: the number that the compiled code has where the loader must put another."""
    required: tuple[str, ...] = ()
    """Those that every program of LOOKUPS must contain."""
    at_return: tuple[str, ...] = ()
    """Those that every program of RETURNS must contain."""
    programs: tuple[str, ...] = LOOKUPS
    """The functions of `text` that are programs."""


def compose(
    arch: Arch,
    *,
    action: str = "",
    filters: Mapping[str, str] | None = None,
    constants: Iterable[str] = (),
    at_return: Iterable[str] = (),
    has_returns: bool = False,
) -> ProgramSource:
    """The programs for an architecture, with an action's C and with filters' C by name.

    The action's text defines `on_hit(ctx, slot, cell)`, a filter's a function of the filter's name
    that takes `ctx`. `constants` are the names of numbers that the loader fills in; those in
    `at_return` are used at returns only. With `has_returns` the action also defines
    `on_return(ctx, slot, cell)`.
    """
    filters = filters or {}
    required, at_return = tuple(constants), tuple(at_return)
    placeholders = {
        BUCKET_SHIFT: _SHIFT_PLACEHOLDER,
        EPOCH: _EPOCH_PLACEHOLDER,
        INSTRUCTION_POINTER_AT: _IP_PLACEHOLDER,
        STACK_POINTER_AT: _STACK_PLACEHOLDER,
        MAPS_ID: _MAPS_PLACEHOLDER,
        STACK_MOVES: _MOVES_PLACEHOLDER,
        **{name: _FIRST_PLACEHOLDER + at for at, name in enumerate((*required, *at_return))},
        SESSION_IS_RETURN: _SESSION_PLACEHOLDER,
    }
    if action:
        names = (*ARGUMENTS_AT, RESULT_AT)
        placeholders |= {name: _REGISTERS_PLACEHOLDER + 8 * at for at, name in enumerate(names)}
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
    texts = ["\n".join([*lines, ""])]
    if action or filters:
        texts += [read_bpf("constant.h"), *filters.values(), action]
    texts.append(read_bpf("hit.h", *(f"{lookup}.c" for lookup in LOOKUPS)))
    if has_returns:
        texts.append(read_bpf("return.h", "by_session.c"))
    programs = (*LOOKUPS, *(CALLS if has_returns else ()))
    return ProgramSource("".join(texts), placeholders, required, at_return, programs)


def tasks() -> ProgramSource:
    """The programs that see tasks come and go."""
    placeholders = {"TASK_PID_AT": _FIRST_PLACEHOLDER, FIELD_AT: _FIELD_PLACEHOLDER}
    lines = [f"#define {name} {number}\n" for name, number in placeholders.items()]
    text = "".join([*lines, read_bpf(*_TASK_FILES)])
    return ProgramSource(text, placeholders, programs=_TASK_PROGRAMS)


def read_bpf(*names: str) -> str:
    """Files of bpf/, one after the other."""
    return "".join(read_text(f"{BPF_FOLDER}/{name}") for name in names)
