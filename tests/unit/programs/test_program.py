"""The compiled programs: their cache, and the maps put into them."""

from __future__ import annotations

import json
import os
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from recorded import recorded

from batchprobe import arch
from batchprobe.programs import bytecode, compiler
from batchprobe.programs import program as programs
from batchprobe.programs.program import PROGRAMS
from batchprobe.sys import cache_file

# What the compiler printed on Debian 12.
TEXT = recorded("debian-12", "programs.json").decode()
SHIPPED: dict[str, dict[str, Any]] = {
    name: import_module(f"batchprobe.programs.bytecode.{name}").SHIPPED
    for name in (file.stem for file in Path(bytecode.__file__).parent.glob("[!_]*.py"))
}
MAPS = ("gates", "counts", "places", "slots", "strays", "epochs", "symbols")


def test_every_program_is_there() -> None:
    parsed = compiler.parse(TEXT)
    assert set(parsed) == set(PROGRAMS)
    for name, program in parsed.items():
        assert program.name == name
        assert len(program.code) % 8 == 0
        used = {map_name for _, map_name in program.maps}
        assert {"counts", "gates"} <= used <= set(MAPS)
    assert "epochs" in {name for _, name in parsed["by_link"].maps}
    assert "symbols" in {name for _, name in parsed["by_running_kprobe"].maps}


@pytest.mark.parametrize("name", PROGRAMS)
def test_maps_take_the_place_of_their_names(name: str) -> None:
    """Only the immediate operand of a map's load (64 bits, pseudo source 1) changes, that of the
    shift that leaves as many bits as there are places, and that with which a link's epoch is
    compared.
    """
    program = compiler.parse(TEXT)[name]
    fds = {map_name: 1000 + number for number, map_name in enumerate(MAPS)}
    code = program.code_with({**fds, "PLACE_SHIFT": 27, "EPOCH": 9})
    before, after = (list(struct.iter_unpack("=BBhi", c)) for c in (program.code, code))
    at, constants = dict(program.maps), dict(program.constants)
    assert at
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if index in at:
            assert (new[0], new[1] >> 4, new[3]) == (0x18, 1, fds[at[index]])
            assert new[:3] == old[:3]
        elif index in constants:
            given = {"PLACE_SHIFT": (32 - programs.MOST_PLACE_BITS, 27), "EPOCH": (1164988227, 9)}
            assert (old[3], new[3]) == given[constants[index]]
            assert new[:3] == old[:3]
        else:
            assert new == old
    # No load of a map was overlooked: it would name a descriptor of the compiler's.
    loads = {i for i, (op, registers, _, _) in enumerate(before) if (op, registers >> 4) == (24, 1)}
    assert loads == set(at)
    assert sorted(constants.values()) == ["EPOCH"] * (name == "by_link") + ["PLACE_SHIFT"]


def test_a_map_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError):
        compiler.parse(TEXT)["by_ip"].code_with({"gates": 3})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    file = tmp_path / "programs" / "key.json"
    cache_file.write(file, TEXT.encode())
    return file


def test_cache_is_read_back(cache: Path) -> None:
    assert compiler._read_cache(cache) == compiler.parse(TEXT)
    assert cache.stat().st_mode & 0o777 == 0o600
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(cache.parent) == [cache.name]  # noqa: PTH208


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_cache_that_others_may_write_is_not_trusted(cache: Path, mode: int) -> None:
    cache.chmod(mode)
    assert compiler._read_cache(cache) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_cache_of_another_user_is_not_trusted(cache: Path) -> None:
    os.chown(cache, 65534, 65534)
    assert compiler._read_cache(cache) is None


@pytest.mark.parametrize(
    "text",
    ["", TEXT[: len(TEXT) // 2], "[]", "1", '{"by_ip": {}}', '{"by_ip": 1}',
     json.dumps({"by_ip": {"code": "zz", "maps": []}}),
     json.dumps({"by_ip": {"code": "00", "maps": 7}})],
)  # fmt: skip
def test_damaged_cache_counts_as_none(cache: Path, text: str) -> None:
    cache.write_text(text)
    assert compiler._read_cache(cache) is None


def test_absent_cache(tmp_path: Path) -> None:
    assert compiler._read_cache(tmp_path / "absent") is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache_file.write(tmp_path / "file" / "key.json", TEXT.encode())
    assert (tmp_path / "file").read_bytes() == b""


def test_the_cache_belongs_to_this_kernel_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = programs.source()
    file = compiler._cache_file(source)
    assert file == compiler._cache_file(source)
    assert file.is_relative_to(tmp_path / "batchprobe")
    assert file != compiler._cache_file(source + " ")
    for name in PROGRAMS:
        assert f"int {name}(struct pt_regs *ctx)" in source


def test_what_is_shipped_was_built_from_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change in bpf/: scripts/build-programs."""
    monkeypatch.delenv(programs.COMPILE, raising=False)
    assert set(SHIPPED) == set(arch.ADAPTERS) - {"ia64"}
    for name, shipped in SHIPPED.items():
        assert shipped["source"] == programs.source(arch.adapter(name)).splitlines()
        assert set(shipped["programs"]) == set(PROGRAMS)


def test_architectures_differ_in_one_instruction_and_byte_order() -> None:
    """Whoever reads one program knows them all, but for how they add."""
    code = {name: shipped["programs"] for name, shipped in SHIPPED.items()}
    adapters = {file: arch.adapter(file) for file in code}
    atomic = {file for file in code if adapters[file].may_tell_wrong_cpu}
    assert atomic == {"arm64", "riscv64"}
    for name in ("by_link", "by_func_ip"):
        little = {code[file][name]["code"] for file in code if file not in {"s390x", *atomic}}
        assert len(little) == 1
        assert len(code["s390x"][name]["code"]) == len(little.pop())
        adding = {code[file][name]["code"] for file in atomic}
        assert len(adding) == 1
        # lock *(u64 *)(r0 + 0) += r1
        assert "db10000000000000" in adding.pop()
    for file, adapter in adapters.items():
        order = ">" if file == "s390x" else "<"
        program = bytes.fromhex(code[file]["by_ip"]["code"])
        _, _, offset, _ = struct.unpack_from(f"{order}BBhi", program, 0)
        assert offset == adapter.registers.instruction_pointer


def test_what_is_shipped_serves_only_what_it_was_built_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(programs.COMPILE, raising=False)
    source = programs.source()
    shipped = programs.shipped(source)
    assert shipped is not None
    assert set(shipped) == set(PROGRAMS)
    assert programs.shipped(source + " ") is None
    monkeypatch.setenv(programs.COMPILE, "1")
    assert programs.shipped(source) is None
