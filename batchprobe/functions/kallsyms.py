"""/proc/kallsyms cut into columns: which symbols of the running kernel are code, and where.

The file has 120,000 to 360,000 lines, and a loop over them in Python takes seconds under emulation.
So everything that touches every line is a method of `str`, `bytes` or `list`.
"""

from __future__ import annotations

import re
import sys
from array import array
from itertools import compress, groupby

from batchprobe.errors import UnsupportedError
from batchprobe.functions.name_index import NameIndex
from batchprobe.functions.symbols import LANDMARKS, CodeSymbols

__all__ = ["numbers_of", "parse_kallsyms"]

# Not all with such a type are in code: Linux 7 gives T to its data too.
_TEXT_TYPES = frozenset("tTwW")
# ELF mapping symbols and local labels, which modules keep (is_mapping_symbol() in linux/module.h).
# They lie inside functions: taken for a symbol, one would end the function it is in.
_MAPPING = re.compile(r"\$|\.L|L0\x01")
# What is listed like a module and is none: BPF programs and trampolines that come and go.
_PSEUDO_MODULES = re.compile(r"(?:bpf|__builtin__\w+)$")
# Symbols of code, but nothing one could call: the borders of sections, by which ftrace may call the
# function that begins there; entry padding, the cold half of a split function.
_NOT_A_FUNCTION = re.compile(
    r"(?P<border>_(?:s|e)?(?:init)?text$|__\w*text_(?:start|end|begin)$)"
    r"|__pfx_|__cfi_|.+\.cold(?:\.|$)"
)


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
    is_code = [type_ in _TEXT_TYPES for type_ in types]
    for position in range(count, len(names)):
        if _MAPPING.match(names[position]) or _PSEUDO_MODULES.match(modules[position]):
            is_code[position] = False
    # Hexadecimal of one width sorts like numbers.
    order = sorted(compress(range(len(names)), is_code), key=addresses.__getitem__)
    if not order:
        raise UnsupportedError(
            "/proc/kallsyms lists no functions", remedy="the kernel needs CONFIG_KALLSYMS=y"
        )
    numbers = numbers_of([addresses[position] for position in order])
    if not numbers[-1]:
        raise UnsupportedError(
            "the kernel hides its addresses from this user",
            remedy="run as root, with /proc/sys/kernel/kptr_restrict at 0 or 1",
        )
    listed = [names[position] for position in order]
    parts = list(map(_NOT_A_FUNCTION.match, listed))
    functions = bytes(part is None for part in parts)
    kept = [
        name if part is None or part.lastgroup else ""
        for name, part in zip(listed, parts, strict=True)
    ]
    return CodeSymbols(
        addresses=numbers,
        lines="\n".join(("", *kept, "")).encode("ascii", "replace"),
        functions=functions,
        index=NameIndex.of(kept, functions),
        runs=_runs([modules[position] for position in order]),
        init=_span(init_text),
        landmarks={
            name: address
            for name in LANDMARKS
            if (address := _address(text[:border], name)) is not None
        },
    )


def numbers_of(addresses: list[str]) -> array[int]:
    """Hexadecimal addresses as numbers; quickest if they are of one width."""
    width = max(map(len, addresses))
    if width != min(map(len, addresses)) or width not in (8, 16):
        return array("Q", [int(address, 16) for address in addresses])
    numbers = array("I" if width == 8 else "Q", bytes.fromhex("".join(addresses)))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers if width == 16 else array("Q", numbers)


def _runs(modules: list[str]) -> tuple[tuple[int, str], ...]:
    runs = []
    start = 0
    for module, symbols in groupby(modules):
        runs.append((start, module))
        start += sum(1 for _ in symbols)
    return tuple(runs)


def _address(text: str, name: str) -> int | None:
    end = text.find(f" {name}\n")
    start = text.rfind("\n", 0, max(end, 0)) + 1
    return int(text[start:end].split(maxsplit=1)[0], 16) if end >= 0 else None


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
