# SPDX-License-Identifier: Apache-2.0
"""Programs: their operands, the compiler's cache, and the shipped bytecode."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import _bytecode
import pytest
from recorded import recorded

from batchprobe import arch
from batchprobe.actions import Count
from batchprobe.actions.loader import source_of
from batchprobe.programs import compiler
from batchprobe.programs.program import MAX_BUCKET_BITS, Program, from_text, to_text
from batchprobe.programs.shipped import COMPILE, FOLDER, digest, section, shipped
from batchprobe.programs.source import LOOKUPS, compose
from batchprobe.sys import cache_file

# The compiler's output on Debian 12.
TEXT = recorded("debian-12", "programs.txt").decode()
FILES = {file.stem: file.read_text() for file in Path(FOLDER).glob("*.txt")}
MAPS = ("gates", "hits", "buckets", "slots", "unclaimed", "epochs", "symbols")
_ATOMIC = "db"  # BPF_STX | BPF_ATOMIC | BPF_DW
CONSTANTS = {"BUCKET_SHIFT": 27, "EPOCH": 9, "INSTRUCTION_POINTER_AT": 128}


def compiled() -> dict[str, Program]:
    return from_text(TEXT)


def test_every_lookup_has_a_program() -> None:
    programs = compiled()
    assert set(programs) == set(LOOKUPS)
    for name, program in programs.items():
        assert program.name == name
        assert len(program.code) % 8 == 0
        used = {operand for _, operand in program.operands} - CONSTANTS.keys()
        assert {"hits", "gates"} <= used <= set(MAPS)
    assert "epochs" in {name for _, name in programs["by_link"].operands}
    assert "symbols" in {name for _, name in programs["by_running_kprobe"].operands}


@pytest.mark.parametrize("name", LOOKUPS)
def test_only_operands_are_filled_in(name: str) -> None:
    """They are the immediates of map loads (64 bits, pseudo source 1), of the shift that leaves the
    number of a bucket, and of the comparison with a link's epoch; and the offset of the instruction
    pointer in the context.
    """
    program = compiled()[name]
    fds = {map_name: 1000 + number for number, map_name in enumerate(MAPS)}
    code = program.code_with({**fds, **CONSTANTS})
    before, after = (list(struct.iter_unpack("=BBhi", c)) for c in (program.code, code))
    at = dict(program.operands)
    assert at
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        operand = at.get(index)
        if operand in fds:
            assert new == (0x18, old[1], old[2], fds[operand])
            assert new[1] >> 4 == 1
        elif operand == "INSTRUCTION_POINTER_AT":
            assert new == (old[0], old[1], CONSTANTS[operand], old[3])
        elif operand is not None:
            assert new == (*old[:3], CONSTANTS[operand])
        else:
            assert new == old
    # Every map load is an operand: any other would keep a descriptor of the compiler's process.
    loads = {i for i, (op, registers, _, _) in enumerate(before) if (op, registers >> 4) == (24, 1)}
    assert loads == {index for index, operand in at.items() if operand in fds}
    constants = sorted(operand for operand in at.values() if operand in CONSTANTS)
    assert constants == [
        "BUCKET_SHIFT",
        *["EPOCH"] * (name == "by_link"),
        *["INSTRUCTION_POINTER_AT"] * (name == "by_ip"),
    ]


@pytest.mark.parametrize("kind", sorted(FILES))
@pytest.mark.parametrize("name", ["latency", "latency+scope"])
def test_a_session_calls_the_kernel_function(kind: str, name: str) -> None:
    """The one call with an operand gets the pseudo source 2, and nothing else changes with it."""
    found = section(FILES[kind], name)
    assert found is not None
    program = from_text(found[1])["by_session"]
    values = {operand: 0 for _, operand in program.operands}
    one, other = (program.code_with({**values, "SESSION_IS_RETURN": btf}) for btf in (0, 71234))
    [at] = [index for index, operand in program.operands if operand == "SESSION_IS_RETURN"]
    assert [index for index in range(len(one) // 8) if _at(one, index) != _at(other, index)] == [at]
    source = 0x20 if sys.byteorder == "little" else 0x02
    assert struct.unpack("=BBhi", _at(other, at)) == (0x85, source, 0, 71234)
    # Called first, after the address of the function is known, with the context in R1.
    calls = [index for index in range(len(one) // 8) if _at(one, index)[0] == 0x85]
    assert calls.index(at) == 1
    # Helpers are still called as such.
    assert {_at(other, index)[1] for index in calls if index != at} == {0}


def _at(code: bytes, index: int) -> bytes:
    return code[8 * index : 8 * index + 8]


def test_text_is_parsed_back() -> None:
    assert to_text(compiled().values()) == TEXT
    assert from_text("") == {}


def test_a_file_has_sections() -> None:
    text = f"section count 12ab\n{TEXT}section latency 34cd\nprogram by_ip 00\n"
    assert section(text, "count") == ("12ab", TEXT.rstrip("\n"))
    assert section(text, "latency") == ("34cd", "program by_ip 00\n")
    assert section(text, "lat") is None


def test_an_operand_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        compiled()["by_ip"].code_with({"gates": 3})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    file = tmp_path / "programs" / "key.txt"
    cache_file.write(file, TEXT.encode())
    return file


def test_the_cache_is_read_back(cache: Path) -> None:
    assert to_text((compiler._read_cache(cache, set(LOOKUPS)) or {}).values()) == to_text(
        compiled().values()
    )
    assert cache.stat().st_mode & 0o777 == 0o600
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(cache.parent) == [cache.name]  # noqa: PTH208


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_cache_that_others_may_write_is_not_trusted(cache: Path, mode: int) -> None:
    cache.chmod(mode)
    assert compiler._read_cache(cache, set(LOOKUPS)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_cache_of_another_user_is_not_trusted(cache: Path) -> None:
    os.chown(cache, 65534, 65534)
    assert compiler._read_cache(cache, set(LOOKUPS)) is None


@pytest.mark.parametrize(
    "text",
    ["", TEXT[: len(TEXT) // 2], "[]", "program ", "program by_ip", "program by_ip zz\n",
     "program by_ip 00\n", TEXT.replace("operand", "operator", 1), TEXT + "\n",
     TEXT.replace("operand 0 ", "operand x ", 1), TEXT.replace("by_link", "by_name")],
)  # fmt: skip
def test_a_damaged_cache_is_ignored(cache: Path, text: str) -> None:
    cache.write_text(text)
    assert compiler._read_cache(cache, set(LOOKUPS)) is None


def test_an_absent_cache_is_no_error(tmp_path: Path) -> None:
    assert compiler._read_cache(tmp_path / "absent", set(LOOKUPS)) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache_file.write(tmp_path / "file" / "key.txt", TEXT.encode())
    assert (tmp_path / "file").read_bytes() == b""


def test_the_cache_belongs_to_this_kernel_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = compose(arch.adapter("x86_64")).text
    file = compiler._cache_file(text)
    assert file == compiler._cache_file(text)
    assert file.is_relative_to(tmp_path / "batchprobe")
    assert file != compiler._cache_file(text + " ")
    for name in LOOKUPS:
        assert f"int {name}(struct pt_regs *ctx)" in text


def test_the_source_has_the_action_and_the_filters() -> None:
    source = compose(
        arch.adapter("x86_64"),
        action="/* the action */",
        filters={"first": "/* one */", "second": "/* two */"},
        constants=["LIMIT", "COLOUR"],
    )
    assert source.required == ("LIMIT", "COLOUR")
    assert len(set(source.placeholders.values())) == len(source.placeholders)
    for line in (
        "#define FILTERS_PASS(ctx) (first(ctx) && second(ctx))",
        "#define ON_HIT on_hit",
        f"#define LIMIT {source.placeholders['LIMIT']}",
        "/* the action */",
        "/* two */",
    ):
        assert line in source.text
    # Definitions come before their use.
    assert source.text.index("/* the action */") < source.text.index("static inline u64 hit(")


def test_counting_alone_has_neither_action_nor_filter() -> None:
    text = compose(arch.adapter("x86_64")).text
    assert "#define FILTERS_PASS(ctx) 1" in text
    assert "#define ON_HIT on_hit" not in text


def test_the_shipped_bytecode_was_built_from_bpf() -> None:
    """If this fails after a change in bpf/ or a shipped action, run scripts/build-programs."""
    adapters = list(_bytecode.variants())
    assert set(FILES) == {adapter.bytecode for adapter in adapters}
    for adapter in adapters:
        for name, source in _bytecode.sections(adapter):
            found = section(FILES[adapter.bytecode], name)
            assert found is not None
            assert found[0] == digest(source.text)
            assert set(from_text(found[1])) == set(source.programs)


def test_counting_without_filters_costs_what_it_did() -> None:
    """Instructions of the programs, before there were filters or other actions."""
    lengths = {"by_ip": 108, "by_link": 121, "by_func_ip": 109, "by_running_kprobe": 151}
    found = section(FILES["le64"], "count")
    assert found is not None
    programs = from_text(found[1])
    assert {name: len(program.code) // 8 for name, program in programs.items()} == lengths


def test_each_architecture_finds_its_bytecode() -> None:
    for file in set(arch.ADAPTERS) - {"ia64"}:
        adapter = arch.adapter(file)
        assert shipped(adapter, "count", lambda a=adapter: source_of(a, Count()).text), file  # type: ignore[misc]


def test_kinds_of_machine_differ_in_word_size_byte_order_and_addition() -> None:
    code = {kind: _code(text) for kind, text in FILES.items()}
    for name in ("count by_link", "count by_func_ip", "program by_link", "program by_func_ip"):
        assert code["le64"][name] == code["le32"][name]
        assert code["be64"][name] != code["le64"][name]
        assert _ATOMIC in _operations(code["le64-atomic"][name])
        assert _ATOMIC not in _operations(code["le64"][name])
    assert code["le64"]["count by_ip"] != code["le32"]["count by_ip"]


def _operations(code: str) -> set[str]:
    return {code[at : at + 2] for at in range(0, len(code), 16)}


def _code(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for section_name in ("count", "program"):
        part = section(text, section_name)
        assert part is not None, section_name
        programs = from_text(part[1]).items()
        found |= {f"{section_name} {name}": program.code.hex() for name, program in programs}
    return found


def test_bytecode_is_used_only_for_the_source_it_was_built_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(COMPILE, raising=False)
    adapter = arch.adapter("s390x" if sys.byteorder == "big" else "x86_64")
    source = source_of(adapter, Count())
    programs = shipped(adapter, "count", lambda: source.text)
    assert programs is not None
    assert set(programs) == set(LOOKUPS)
    assert shipped(adapter, "latency", lambda: source.text) is None
    # In a checkout, bpf/ may have been edited.
    edited = source._replace(text=source.text + " ")
    assert shipped(adapter, "count", lambda: edited.text) is None
    monkeypatch.setenv(COMPILE, "1")
    assert shipped(adapter, "count", lambda: source.text) is None


def test_the_widest_shift_is_the_placeholder() -> None:
    assert compose(arch.adapter("x86_64")).placeholders["BUCKET_SHIFT"] == 32 - MAX_BUCKET_BITS
