# SPDX-License-Identifier: Apache-2.0
"""The function table, on small lists and on lists recorded from real kernels."""

from __future__ import annotations

import re
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import KERNELS, recorded, table

from batchprobe.errors import UnsupportedError
from batchprobe.functions.kallsyms import parse_kallsyms
from batchprobe.functions.table import Function, FunctionTable
from batchprobe.functions.unmatched import Unmatched

BASE = 0xFFFFFFFF81000000
CORE = """\
0000000000000000 A fixed_percpu_data
ffffffff80ffff00 T before_text
ffffffff81000000 T startup
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 t __pfx_one
ffffffff81000110 T one
ffffffff81000180 t two.isra.0
ffffffff810001c0 t two.isra.0.cold
ffffffff810001d0 t two.part.1
ffffffff81000200 W three
ffffffff81000200 T alias_of_three
ffffffff81000240 r table_in_text
ffffffff81000300 t one
ffffffff81000340 T _etext
ffffffff82000000 D data
ffffffff82000100 T data_said_to_be_text
ffffffff83000000 T _sinittext
ffffffff83000010 t at_boot
ffffffff83000080 T _einittext
"""
MODULES = """\
ffffffffc0002040 t two\t[mod_b]
ffffffffc0002000 t one\t[mod_b]
ffffffffc0002080 d data_of_b\t[mod_b]
ffffffffc0001040 t $d\t[mod_a]
ffffffffc0001000 t $x\t[mod_a]
ffffffffc0001000 T entry\t[mod_a]
ffffffffc0001080 t .L12\t[mod_a]
ffffffffc0001100 t leave\t[mod_a]
ffffffffc0003000 t bpf_prog_6deef7357e7b4530_x\t[bpf]
ffffffffc0004000 t ftrace_trampoline\t[__builtin__ftrace]
"""


def small(**texts: bytes | None) -> FunctionTable:
    return FunctionTable.from_text((CORE + MODULES).encode(), **texts)  # type: ignore[arg-type]


def names(functions: list[Function]) -> list[str]:
    return [function.name for function in functions]


def everything(functions: FunctionTable) -> list[Function]:
    return functions.matching(lambda name: True)


def test_which_symbols_are_functions() -> None:
    assert names(everything(small())) == [
        *("startup", "one", "two.isra.0", "two.part.1", "three", "alias_of_three", "one"),
        *("at_boot", "entry", "leave", "one", "two"),
    ]


def test_find() -> None:
    found = small().find(["one", "entry", "none", "two"])
    assert found == {
        "one": [
            Function("one", "", BASE + 0x110, 0x70),
            Function("one", "", BASE + 0x300, 0x40),
            Function("one", "mod_b", 0xFFFFFFFFC0002000, 0x40),
        ],
        "entry": [Function("entry", "mod_a", 0xFFFFFFFFC0001000, 0x100)],
        "two": [Function("two", "mod_b", 0xFFFFFFFFC0002040, 0)],
    }
    assert small().find([]) == {}


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_function_is_found_by_its_name(kernel: str) -> None:
    functions = FunctionTable.from_text(recorded(kernel, "kallsyms"))
    by_name: dict[str, list[Function]] = {}
    for function in everything(functions):
        by_name.setdefault(function.name, []).append(function)
    assert functions.find(by_name) == by_name
    assert functions.find(f"{name}?" for name in by_name) == {}


def test_names_with_equal_hashes() -> None:
    first, other = "plumless", "buckeroo"
    assert crc32(first.encode()) == crc32(other.encode())
    lines = [f"{BASE + 16 * at:x} t {name}\n" for at, name in enumerate((first, "x", first))]
    one_of_them = FunctionTable.from_text("".join(lines).encode())
    assert [f.address for f in one_of_them.find([first, other])[first]] == [BASE, BASE + 32]
    assert one_of_them.named(other) == ()
    both = FunctionTable.from_text(("".join(lines) + f"{BASE + 48:x} t {other}\n").encode())
    assert [f.address for f in both.named(first)] == [BASE, BASE + 32]
    assert [f.address for f in both.named(other)] == [BASE + 48]


def test_named_falls_back_to_clones() -> None:
    functions = FunctionTable.from_text(CORE.encode())
    assert [f.name for f in functions.named("two")] == ["two.isra.0", "two.part.1"]
    assert [f.name for f in functions.named("two.isra.0")] == ["two.isra.0"]
    assert [f.name for f in small().named("two")] == ["two"]
    assert functions.named("two.isra") == ()
    assert functions.named("two.isra.0.cold") == ()


def test_matching() -> None:
    functions = small()
    assert names(functions.matching(re.compile("t").match)) == [
        *("two.isra.0", "two.part.1", "three", "two"),
    ]
    assert names(functions.matching(re.compile("o").search, modules={"mod_b"})) == ["one", "two"]
    assert names(functions.matching(re.compile("e$").search, modules={""})) == [
        *("one", "three", "alias_of_three", "one"),
    ]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (BASE, ("startup", 0)),
        (BASE + 0xFF, ("startup", 0xFF)),
        (BASE + 0x100, None),
        (BASE + 0x110, ("one", 0)),
        (BASE + 0x17F, ("one", 0x6F)),
        (BASE + 0x1C0, None),
        (BASE + 0x200, ("three", 0)),
        (BASE + 0x250, ("three", 0x50)),
        (BASE + 0x340, None),
        (BASE + 0x1000100, None),
        (0xFFFFFFFF83000010, ("at_boot", 0)),
        (0xFFFFFFFFC0001085, ("entry", 0x85)),
        (0xFFFFFFFFC0001140, ("leave", 0x40)),
        (0xFFFFFFFFC000F000, None),
        (0, None),
        (2**64, None),
    ],
)
def test_function_at(address: int, expected: tuple[str, int] | None) -> None:
    found = small().function_at(address)
    assert (found and (found[0].name, found[1])) == expected


def test_traceable() -> None:
    functions = small(traceable=b"__ftrace_invalid_address___12\none\nthree\none [mod_b]\n")
    answers = {(f.name, f.module): functions.is_traceable(f) for f in everything(functions)}
    # ftrace lists one name per address; the alias is the same function.
    assert {function for function, answer in answers.items() if answer} == {
        ("one", ""),
        ("three", ""),
        ("alias_of_three", ""),
        ("one", "mod_b"),
    }
    for unknown in (None, b""):
        functions = small(traceable=unknown)
        assert {functions.is_traceable(f) for f in everything(functions)} == {None}


def test_traceable_by_address() -> None:
    # The patch site may follow an endbr64; `one` is the name of two other functions as well.
    functions = small(
        traceable=b"ffffffff81000114 one\nffffffff81000200 three\nffffffffc0001004 entry [mod_a]\n"
    )
    answers = {f: functions.is_traceable(f) for f in everything(functions)}
    assert {(f.name, f.address & 0xFFF) for f, answer in answers.items() if answer} == {
        ("one", 0x110),
        ("three", 0x200),
        ("alias_of_three", 0x200),
        ("entry", 0),
    }
    assert set(answers.values()) == {True, False}


def test_blacklist() -> None:
    functions = small(
        blacklist=b"0xffffffff81000110-0xffffffff81000180\tone\n"
        b"0xffffffff81000150-0xffffffff81000170\tone\n"
        b"0xffffffff81000200-0xffffffff81000240\tthree\n"
    )
    borders = (0x10F, 0x110, 0x17F, 0x180, 0x200, 0x240)
    assert [functions.is_blacklisted(BASE + border) for border in borders] == [
        *(False, True, True, False, True, False),
    ]
    assert small(blacklist=b"").is_blacklisted(BASE) is False
    assert small().is_blacklisted(BASE) is None


def test_init() -> None:
    functions = small()
    assert [f.name for f in everything(functions) if functions.is_init(f.address)] == ["at_boot"]


def test_symbols_that_are_not_functions() -> None:
    functions = small()
    for name in ("data", "data_of_b", "data_said_to_be_text", "__pfx_one", "_etext", "_stext"):
        assert functions.named(name) == ()
        assert Unmatched(functions, ()).has_symbol(name)
    assert not Unmatched(functions, ()).has_symbol("dat")
    assert not Unmatched(functions, ()).has_symbol("ata")


def test_symbol_address() -> None:
    functions = small()
    assert functions.symbol_address("data") == 0xFFFFFFFF82000000
    assert functions.symbol_address("fixed_percpu_data") == 0
    assert functions.symbol_address("_etext") == BASE + 0x340
    assert functions.symbol_address("dat") is None
    assert functions.symbol_address("data_of_b") is None


def test_modules() -> None:
    functions = small(modules=b"loading 1 0 - Loading 0xffffffffc0005000\nmod_a 2 0 - Live 0x0\n")
    assert functions.modules == {"mod_a", "mod_b", "loading"}


def test_hidden_addresses() -> None:
    hidden = re.sub(r"^[0-9a-f]+", "0" * 16, CORE, flags=re.MULTILINE)
    with pytest.raises(UnsupportedError, match="hides its addresses") as caught:
        FunctionTable.from_text(hidden.encode())
    assert "kptr_restrict" in caught.value.remedy
    assert "root" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "ffffffff82000000 D data\n"])
def test_no_symbols(text: str) -> None:
    with pytest.raises(UnsupportedError, match="lists no functions"):
        FunctionTable.from_text(text.encode())


@pytest.mark.parametrize(
    "text", ["<html>\n", "ffffffff82000000 T one two\n", CORE.replace("t one\n", "one\n")]
)
def test_not_kallsyms(text: str) -> None:
    with pytest.raises(UnsupportedError, match="unknown"):
        FunctionTable.from_text(text.encode())


@pytest.mark.parametrize("core", ["8000", "7000"])
def test_modules_may_lie_below_the_core_kernel(core: str) -> None:
    text = f"""\
{core}8000 T _stext
{core}8000 t one
{core}8100 T _etext
7f000100 t low\t[mod]
7f000000 t lower\t[mod]
"""
    sizes = {f.name: f.size for f in everything(FunctionTable.from_text(text.encode()))}
    assert sizes == {"one": 0x100, "lower": 0x100, "low": 0}


def test_from_kernel(tmp_path: Path) -> None:
    proc, tracefs, debugfs = tmp_path / "proc", tmp_path / "tracing", tmp_path / "debug"
    proc.mkdir()
    with pytest.raises(UnsupportedError, match="kallsyms cannot be read"):
        FunctionTable.from_kernel(tracefs, proc=proc, debugfs=debugfs)
    (proc / "kallsyms").write_text(CORE)
    functions = FunctionTable.from_kernel(tracefs, proc=proc, debugfs=debugfs)
    (one, *_) = functions.named("one")
    assert functions.is_traceable(one) is None
    assert functions.is_blacklisted(one.address) is None
    assert functions.modules == frozenset()

    # Lists are read when needed, not before.
    functions = FunctionTable.from_kernel(tracefs, proc=proc, debugfs=debugfs)
    tracefs.mkdir()
    (tracefs / "available_filter_functions").write_text("one\n")
    # The list with addresses takes precedence.
    again = FunctionTable.from_kernel(tracefs, proc=proc, debugfs=debugfs)
    (tracefs / "available_filter_functions_addrs").write_text("ffffffff81000310 one\n")
    assert [again.is_traceable(f) for f in again.named("one")] == [False, True]
    functions = FunctionTable.from_kernel(tracefs, proc=proc, debugfs=debugfs)
    (tracefs / "available_filter_functions_addrs").unlink()
    (debugfs / "kprobes").mkdir(parents=True)
    (debugfs / "kprobes/blacklist").write_text(f"{BASE + 0x110:#x}-{BASE + 0x180:#x}\tone\n")
    assert functions.is_traceable(one) is True
    assert functions.is_blacklisted(one.address) is True


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(BASE, BASE + 64),
            st.sampled_from("tTwWdDrb"),
            st.sampled_from(["a", "b", "a.isra.0", "a.cold", "__pfx_a"]),
        ),
        max_size=20,
    )
)
def test_every_address_is_in_one_function_at_most(lines: list[tuple[int, str, str]]) -> None:
    symbols = [*sorted(lines), (BASE + 65, "T", "last")]
    text = "".join(f"{address:x} {type_} {name}\n" for address, type_, name in symbols)
    functions = FunctionTable.from_text(text.encode())
    listed = everything(functions)
    assert {f.name for f in listed} <= {"a", "b", "a.isra.0", "last"}
    for address in range(BASE, BASE + 65):
        around = {f.address for f in listed if f.address <= address < f.address + f.size}
        found = functions.function_at(address)
        assert {found[0].address} == around if found else not around


# The tests below use the recorded kernels.


@pytest.mark.parametrize("kernel", KERNELS)
def test_recorded_functions(kernel: str) -> None:
    functions = table(kernel)
    (vfs_read,) = functions.named("vfs_read")
    assert 0x100 < vfs_read.size < 0x1000
    assert functions.is_traceable(vfs_read)
    assert functions.function_at(vfs_read.address + 5) == (vfs_read, 5)
    assert len(functions.named("type_show")) > 10
    assert {f.module for f in functions.named("init_once")} == {"", "ext4"}
    assert {f.module for f in functions.named("cleanup_module")} == {"mbcache", "virtio_blk"}
    (reno,) = functions.named("tcp_add_reno_sack")
    assert reno.name == "tcp_add_reno_sack.part.0"
    assert functions.named("recorded") == ()
    assert functions.modules >= {"ext4", "mbcache", "crc16", "virtio_blk"}
    assert not functions.modules & {"bpf", "__builtin__ftrace", "__builtin__kprobes"}
    for name in ("linux_banner", "tcp_memory_pressure"):
        assert functions.named(name) == ()
        assert Unmatched(functions, ()).has_symbol(name)


@pytest.mark.parametrize("kernel", KERNELS)
def test_recorded_lists_agree(kernel: str) -> None:
    functions = table(kernel)
    known = {(f.name, f.module): f for f in everything(functions)}
    for line in recorded(kernel, "available_filter_functions").decode().splitlines():
        name, _, module = line.partition(" [")
        if not name.startswith("__ftrace_invalid"):
            assert functions.is_traceable(known[name, module.rstrip("]")])
    assert functions.is_blacklisted(known["do_int3", ""].address)
    assert not functions.is_blacklisted(known["vfs_read", ""].address)
    init = {name for (name, _), f in known.items() if functions.is_init(f.address)}
    assert "tcp_init" in init
    assert not any(functions.is_traceable(known[name, ""]) for name in init)


@pytest.mark.parametrize("kernel", KERNELS)
def test_recorded_aliases(kernel: str) -> None:
    functions = table(kernel)
    (alias,) = functions.named("__x64_sys_getpid")
    listed = recorded(kernel, "available_filter_functions").splitlines()
    assert b"__do_sys_getpid" in listed
    assert b"__x64_sys_getpid" not in listed
    assert functions.is_traceable(alias)


@pytest.mark.parametrize("kernel", KERNELS)
def test_recorded_sizes(kernel: str) -> None:
    text = recorded(kernel, "kallsyms").decode()
    symbols = parse_kallsyms(text)
    assert symbols.addresses.tolist() == sorted(symbols.addresses)
    functions = [f for f in everything(table(kernel)) if f.module == "mbcache"]
    *others, last = [f for f in functions if f.name != "cleanup_module"]
    assert (last.name, last.size) == ("mbcache_exit", 0)
    assert all(0 < f.size < 0x1000 for f in others)
    assert "mb_cache_create" in names(others)


def test_similar() -> None:
    functions = table("debian-12")
    assert "vfs_read" in functions.similar("vfs_raed")
    assert "vfs_write" in functions.similar("vsf_write")
    assert functions.similar("xyzzy_plugh") == set()
    assert functions.similar("tcp") == set()
    assert not {"linux_banner", "_stext"} & functions.similar("linux_banners")
