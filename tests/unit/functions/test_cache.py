# SPDX-License-Identifier: Apache-2.0
"""Caching the kernel's lists from one start to the next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from recorded import KERNELS, recorded

from batchprobe.functions.cache import SymbolCache, kept_symbols, loaded_modules
from batchprobe.functions.kallsyms import parse_kallsyms
from batchprobe.functions.symbols import CodeSymbols


class Kernel:
    """A recorded kernel that counts how often it is read."""

    def __init__(self, kernel: str = "debian-12") -> None:
        self.parsed = parse_kallsyms(recorded(kernel, "kallsyms").decode())
        self.reads = 0

    def symbols(self) -> CodeSymbols:
        self.reads += 1
        return self.parsed

    def text(self) -> bytes | None:
        self.reads += 1
        return b"vfs_read\n"


def cache(folder: Path, loaded: str = "boot") -> SymbolCache:
    return SymbolCache(folder, lambda: loaded)


def comparable(symbols: CodeSymbols) -> dict[str, object]:
    return vars(symbols) | {"index": symbols.index.table, "text": symbols.text}


@pytest.mark.parametrize("name", KERNELS)
def test_lists_survive_unchanged(tmp_path: Path, name: str) -> None:
    kernel = Kernel(name)
    first = cache(tmp_path / "new")
    assert first.symbols(kernel.symbols) is kernel.parsed
    assert first.text("list", kernel.text) == b"vfs_read\n"
    again = cache(tmp_path / "new")
    assert comparable(again.symbols(kernel.symbols)) == comparable(kernel.parsed)
    assert again.text("list", kernel.text) == b"vfs_read\n"
    assert kernel.reads == 2


def test_other_modules_invalidate_the_cache(tmp_path: Path) -> None:
    kernel = Kernel()
    for loaded in ("before", "after", "after"):
        cache(tmp_path, loaded).symbols(kernel.symbols)
    assert kernel.reads == 2


def test_lists_read_while_a_module_is_loaded_are_not_stored(tmp_path: Path) -> None:
    kernel = Kernel()
    states = iter(["before", "after"])
    changing = SymbolCache(tmp_path, lambda: next(states))
    changing.symbols(kernel.symbols)
    assert list(tmp_path.iterdir()) == []


def test_empty_lists_are_not_stored(tmp_path: Path) -> None:
    # ftrace lists nothing while it is disabled, and may be enabled at the next start.
    assert cache(tmp_path).text("list", lambda: b"") == b""
    assert cache(tmp_path).text("list", lambda: None) is None
    assert list(tmp_path.iterdir()) == []


def test_mapped_data_survives_unchanged(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    reads = []

    def read() -> bytes:
        reads.append(data)
        return data

    for loaded in ("boot", "boot", "another"):
        assert cache(tmp_path, loaded).mapped("types", read) == data
    assert len(reads) == 2


def test_only_this_user_can_read_the_file(tmp_path: Path) -> None:
    cache(tmp_path).symbols(Kernel().symbols)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    kernel = Kernel()
    cache(tmp_path).symbols(kernel.symbols)
    (file,) = tmp_path.iterdir()
    file.chmod(0o622)
    cache(tmp_path).symbols(kernel.symbols)
    assert kernel.reads == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_not_trusted(tmp_path: Path) -> None:
    kernel = Kernel()
    cache(tmp_path).symbols(kernel.symbols)
    (file,) = tmp_path.iterdir()
    os.chown(file, 65534, 65534)
    cache(tmp_path).symbols(kernel.symbols)
    assert kernel.reads == 2


@pytest.mark.parametrize("text", [b"", b"\n", b"{", b"[]\n", b'"key"\n', b"{}\n"])
def test_a_damaged_file_is_replaced(tmp_path: Path, text: bytes) -> None:
    kernel = Kernel()
    cache(tmp_path).symbols(kernel.symbols)
    (file,) = tmp_path.iterdir()
    file.write_bytes(text)
    assert vars(cache(tmp_path).symbols(kernel.symbols)) == vars(kernel.parsed)
    assert kernel.reads == 2
    cache(tmp_path).symbols(kernel.symbols)
    assert kernel.reads == 2


def test_an_unwritable_directory_is_no_error(tmp_path: Path) -> None:
    kernel = Kernel()
    (tmp_path / "file").write_text("in the way")
    assert cache(tmp_path / "file").symbols(kernel.symbols) is kernel.parsed


def test_loaded_modules(tmp_path: Path) -> None:
    proc, sysfs = tmp_path / "proc", tmp_path / "sys"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("abc\n")
    (sysfs / "module/ext4").mkdir(parents=True)

    def with_modules(text: str) -> str:
        (proc / "modules").write_text(text)
        return loaded_modules(proc, sysfs)

    assert loaded_modules(proc, sysfs) == "abc\n"
    first = with_modules("ext4 100 1 - Live 0x10\n")
    assert with_modules("ext4 100 2 user, Live 0x10 (E)\n") == first
    assert with_modules("ext4 100 1 - Live 0x20\n") != first
    assert with_modules("ext4 100 1 - Loading 0x10\n") != first
    assert with_modules("ext4 100 1 - Live 0x10\ngone 1 0 - Unloading 0x90\n") != first
    # Reloaded, with the same name, size and address.
    (sysfs / "module/ext4").rename(sysfs / "module/old")
    (sysfs / "module/ext4").mkdir()
    assert with_modules("ext4 100 1 - Live 0x10\n") != first
    (proc / "sys/kernel/random/boot_id").write_text("def\n")
    assert with_modules("ext4 100 1 - Live 0x10\n") != first


def test_kept_symbols_are_found_after_modules_changed(tmp_path: Path) -> None:
    assert kept_symbols(tmp_path) is None
    kernel = Kernel()
    cache(tmp_path, "one set of modules").symbols(kernel.symbols)
    found = kept_symbols(tmp_path)
    assert found is not None
    assert comparable(found) == comparable(kernel.parsed)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"3\n1 x", b"12\n5 little xx\0"])
def test_other_files_are_not_taken_for_kept_symbols(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "symbols").write_bytes(content)
    assert kept_symbols(tmp_path) is None
