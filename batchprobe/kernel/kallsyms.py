"""/proc/kallsyms cut into columns: which symbols of the running kernel are code, and where.

The file has 120,000 to 360,000 lines, and a loop over them in Python takes seconds under emulation.
So everything that touches every line is a method of `str` or `list`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import compress

from batchprobe.errors import UnsupportedError

__all__ = ["TEXT_TYPES", "CodeSymbols", "parse_kallsyms"]

TEXT_TYPES = frozenset("tTwW")
"""The types of symbols in code. Not all with such a type are: Linux 7 gives T to its data too."""

# ELF mapping symbols and local labels, which modules keep (is_mapping_symbol() in linux/module.h).
# They lie inside functions: taken for a symbol, one would end the function it is in.
_MAPPING = re.compile(r"\$|\.L|L0\x01")
# What is listed like a module and is none: BPF programs and trampolines that come and go.
_PSEUDO_MODULES = re.compile(r"(?:bpf|__builtin__\w+)$")


@dataclass(frozen=True, slots=True)
class CodeSymbols:
    """The symbols of code in parallel lists, sorted by address, then in the kernel's order.

    With them what is no function: section borders, padding, cold parts. They are where functions
    end.
    """

    addresses: list[str]
    """Hexadecimal, all of one width, so that they sort like numbers."""
    names: list[str]
    modules: list[str]
    """Empty for the core kernel."""
    text: tuple[str, ...]
    """The lines they come from, in pieces."""
    init: range
    """The addresses of the core kernel's `__init` functions, whose memory was freed after boot."""


def parse_kallsyms(text: str) -> CodeSymbols:
    """Find the code in the text of /proc/kallsyms.

    Of the core kernel that is what core_kernel_text() in kernel/extable.c takes for code, as
    register_kprobe() does: from `_stext` to `_etext`, and the `__init` functions.
    Raises UnsupportedError if the addresses are hidden or there are no symbols.
    """
    # "address type name", sorted by address, then the modules' lines that end in "\t[module]".
    first = text.find("\t[")
    border = text.rfind("\n", 0, first) + 1 if first >= 0 else len(text)
    init_text = _section(text, "_sinittext", "_einittext")
    core_text = init_text + (_section(text, "_stext", "_etext") or text[:border])
    core, others = core_text.split(), text[border:].split()
    count = len(core) // 3
    types = core[1::3] + others[1::4]
    if len(core) % 3 or len(others) % 4 or max(map(len, types), default=1) != 1:
        raise UnsupportedError("/proc/kallsyms has lines of a form unknown here")
    addresses = core[0::3] + others[0::4]
    names = core[2::3] + others[2::4]
    modules = [""] * count + [module[1:-1] for module in others[3::4]]
    is_code = [type_ in TEXT_TYPES for type_ in types]
    for position in range(count, len(names)):
        if _MAPPING.match(names[position]) or _PSEUDO_MODULES.match(modules[position]):
            is_code[position] = False
    order = sorted(compress(range(len(names)), is_code), key=addresses.__getitem__)
    if not order:
        raise UnsupportedError(
            "/proc/kallsyms lists no functions", remedy="the kernel needs CONFIG_KALLSYMS=y"
        )
    if not int(addresses[order[-1]], 16):
        raise UnsupportedError(
            "the kernel hides its addresses from this user",
            remedy="run as root, with /proc/sys/kernel/kptr_restrict at 0 or 1",
        )
    return CodeSymbols(
        addresses=[addresses[position] for position in order],
        names=[names[position] for position in order],
        modules=[modules[position] for position in order],
        text=(core_text, text[border:]),
        init=_span(init_text),
    )


def _section(text: str, first: str, last: str) -> str:
    """The core kernel's lines from the address of one symbol through another symbol; or none."""
    begin = text.find(f" {first}\n")
    end = text.find(f" {last}\n", begin)
    if begin < 0 or end < 0:
        return ""
    line = text.rfind("\n", 0, begin) + 1
    address = text[line : text.index(" ", line)]
    # other symbols of the same address may come first
    return text[text.find(address) : text.index("\n", end) + 1]


def _span(section: str) -> range:
    """The addresses of a section."""
    if not section:
        return range(0)
    last = section.rfind("\n", 0, -1) + 1
    return range(int(section.split(None, 1)[0], 16), int(section[last:].split(None, 1)[0], 16))
