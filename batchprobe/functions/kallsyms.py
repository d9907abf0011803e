# SPDX-License-Identifier: Apache-2.0
"""Parses /proc/kallsyms: which symbols of the running kernel are code, and where.

The file has 120,000 to 360,000 lines, and a Python loop over them takes seconds under emulation. So
whatever touches every line is a method of `str`, `bytes` or `list`.
"""

from __future__ import annotations

import re
from itertools import compress, groupby

from batchprobe.errors import UnsupportedError
from batchprobe.functions.symbols import LANDMARKS, CodeSymbols, NameIndex, parse_addresses

__all__ = ["parse_kallsyms"]

# Necessary, but not sufficient: Linux 7 also lists data as type T.
_TEXT_TYPES = frozenset("tTwW")
# ELF mapping symbols and local labels, which modules keep (is_mapping_symbol(), linux/module.h).
# They lie inside functions; taken for a symbol, one would end the function around it.
_MAPPING = re.compile(r"\$|\.L|L0\x01")
# Listed like modules: BPF programs and trampolines, which come and go.
_PSEUDO_MODULES = re.compile(r"(?:bpf|__builtin__\w+)$")
# Code symbols that are not functions: section borders, whose names ftrace may use for the function
# that starts there; padding before entries; the cold parts of split functions.
_NOT_A_FUNCTION = re.compile(
    r"(?P<border>_(?:s|e)?(?:init)?text$|__\w*text_(?:start|end|begin)$)"
    r"|__pfx_|__cfi_|.+\.cold(?:\.|$)"
)


def parse_kallsyms(text: str) -> CodeSymbols:
    """Extract the code symbols from the text of /proc/kallsyms.

    In the core kernel, code is what register_kprobe() accepts as such (core_kernel_text(),
    kernel/extable.c): `_stext` to `_etext`, and the `__init` functions.
    Raises UnsupportedError if the addresses are hidden, there are no functions, or the format is
    unknown.
    """
    # "address type name", sorted by address; then lines of modules, which end in "\t[module]".
    first = text.find("\t[")
    border = text.rfind("\n", 0, first) + 1 if first >= 0 else len(text)
    init_text = _section(text, "_sinittext", "_einittext")
    core_text = init_text + (_section(text, "_stext", "_etext") or text[:border])
    core, others = core_text.split(), text[border:].split()
    count = len(core) // 3
    types = core[1::3] + others[1::4]
    if len(core) % 3 or len(others) % 4 or max(map(len, types), default=1) != 1:
        raise UnsupportedError("/proc/kallsyms has lines in an unknown format")
    addresses = core[0::3] + others[0::4]
    names = core[2::3] + others[2::4]
    modules = [""] * count + [module[1:-1] for module in others[3::4]]
    is_code = [type_ in _TEXT_TYPES for type_ in types]
    for position in range(count, len(names)):
        if _MAPPING.match(names[position]) or _PSEUDO_MODULES.match(modules[position]):
            is_code[position] = False
    # Hexadecimal numbers of equal width sort as text.
    order = sorted(compress(range(len(names)), is_code), key=addresses.__getitem__)
    if not order:
        raise UnsupportedError(
            "/proc/kallsyms lists no functions", remedy="the kernel needs CONFIG_KALLSYMS=y"
        )
    numbers = parse_addresses([addresses[position] for position in order])
    if not numbers[-1]:
        raise UnsupportedError(
            "the kernel hides its addresses from this user",
            remedy="run it as root or with CAP_SYSLOG, and kernel.kptr_restrict 0 or 1",
        )
    code_names = [names[position] for position in order]
    matches = list(map(_NOT_A_FUNCTION.match, code_names))
    functions = bytes(match is None for match in matches)
    kept = [
        name if match is None or match.lastgroup else ""
        for name, match in zip(code_names, matches, strict=True)
    ]
    return CodeSymbols(
        addresses=numbers,
        lines="\n".join(("", *kept, "")).encode("ascii", "replace"),
        functions=functions,
        index=NameIndex.build(kept, functions),
        runs=_runs([modules[position] for position in order]),
        init=_address_range(init_text),
        landmarks={
            name: address
            for name in LANDMARKS
            if (address := _address(text[:border], name)) is not None
        },
    )


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
    """Return the lines from the address of symbol `first` through symbol `last`; "" if absent."""
    begin = text.find(f" {first}\n")
    end = text.find(f" {last}\n", begin)
    if begin < 0 or end < 0:
        return ""
    line = text.rfind("\n", 0, begin) + 1
    address = text[line : text.index(" ", line)]
    # Other symbols of the same address may come first.
    return text[text.find(address) : text.index("\n", end) + 1]


def _address_range(section: str) -> range:
    if not section:
        return range(0)
    last = section.rfind("\n", 0, -1) + 1
    return range(int(section.split(None, 1)[0], 16), int(section[last:].split(None, 1)[0], 16))
