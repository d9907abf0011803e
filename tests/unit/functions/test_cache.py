"""What is kept of the kernel's lists from one start to the next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from recorded import KERNELS, recorded

from batchprobe.functions.cache import BootMemory, loaded
from batchprobe.functions.kallsyms import parse_kallsyms
from batchprobe.functions.symbols import CodeSymbols


class Kernel:
    """Counts how often it is read."""

    def __init__(self, kernel: str = "debian-12") -> None:
        self.said = parse_kallsyms(recorded(kernel, "kallsyms").decode())
        self.reads = 0

    def symbols(self) -> CodeSymbols:
        self.reads += 1
        return self.said

    def text(self) -> bytes | None:
        self.reads += 1
        return b"vfs_read\n"


def memory(folder: Path, key: str = "boot") -> BootMemory:
    return BootMemory(folder, lambda: key)


def comparable(symbols: CodeSymbols) -> dict[str, object]:
    return vars(symbols) | {"index": symbols.index.table, "text": symbols.text}


@pytest.mark.parametrize("name", KERNELS)
def test_what_is_kept_is_what_was_read(tmp_path: Path, name: str) -> None:
    kernel = Kernel(name)
    first = memory(tmp_path / "new")
    assert first.symbols(kernel.symbols) is kernel.said
    assert first.text("list", kernel.text) == b"vfs_read\n"
    again = memory(tmp_path / "new")
    assert comparable(again.symbols(kernel.symbols)) == comparable(kernel.said)
    assert again.text("list", kernel.text) == b"vfs_read\n"
    assert kernel.reads == 2


def test_other_modules_other_symbols(tmp_path: Path) -> None:
    kernel = Kernel()
    for key in ("before", "after", "after"):
        memory(tmp_path, key).symbols(kernel.symbols)
    assert kernel.reads == 2


def test_what_was_read_while_a_module_came_is_not_kept(tmp_path: Path) -> None:
    kernel = Kernel()
    keys = iter(["before", "after"])
    changing = BootMemory(tmp_path, lambda: next(keys))
    changing.symbols(kernel.symbols)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_keep(tmp_path: Path) -> None:
    # Of a kernel whose ftrace is off, which may be on at the next start.
    assert memory(tmp_path).text("list", lambda: b"") == b""
    assert memory(tmp_path).text("list", lambda: None) is None
    assert list(tmp_path.iterdir()) == []


def test_addresses_are_a_secret(tmp_path: Path) -> None:
    memory(tmp_path).symbols(Kernel().symbols)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    kernel = Kernel()
    memory(tmp_path).symbols(kernel.symbols)
    (file,) = tmp_path.iterdir()
    file.chmod(0o622)
    memory(tmp_path).symbols(kernel.symbols)
    assert kernel.reads == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_another_user_wrote_is_not_trusted(tmp_path: Path) -> None:
    kernel = Kernel()
    memory(tmp_path).symbols(kernel.symbols)
    (file,) = tmp_path.iterdir()
    os.chown(file, 65534, 65534)
    memory(tmp_path).symbols(kernel.symbols)
    assert kernel.reads == 2


@pytest.mark.parametrize("text", [b"", b"\n", b"{", b"[]\n", b'"key"\n', b"{}\n"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, text: bytes) -> None:
    kernel = Kernel()
    memory(tmp_path).symbols(kernel.symbols)
    (file,) = tmp_path.iterdir()
    file.write_bytes(text)
    assert vars(memory(tmp_path).symbols(kernel.symbols)) == vars(kernel.said)
    assert kernel.reads == 2
    memory(tmp_path).symbols(kernel.symbols)
    assert kernel.reads == 2


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    kernel = Kernel()
    (tmp_path / "file").write_text("in the way")
    assert memory(tmp_path / "file").symbols(kernel.symbols) is kernel.said


def test_which_modules_are_loaded(tmp_path: Path) -> None:
    proc, sysfs = tmp_path / "proc", tmp_path / "sys"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("abc\n")
    (sysfs / "module/ext4").mkdir(parents=True)

    def said(text: str) -> str:
        (proc / "modules").write_text(text)
        return loaded(proc, sysfs)

    assert loaded(proc, sysfs) == "abc\n"
    first = said("ext4 100 1 - Live 0x10\n")
    assert said("ext4 100 2 user, Live 0x10 (E)\n") == first
    assert said("ext4 100 1 - Live 0x20\n") != first
    assert said("ext4 100 1 - Loading 0x10\n") != first
    assert said("ext4 100 1 - Live 0x10\ngone 1 0 - Unloading 0x90\n") != first
    # Loaded anew: same name, size and address.
    (sysfs / "module/ext4").rename(sysfs / "module/old")
    (sysfs / "module/ext4").mkdir()
    assert said("ext4 100 1 - Live 0x10\n") != first
    (proc / "sys/kernel/random/boot_id").write_text("def\n")
    assert said("ext4 100 1 - Live 0x10\n") != first
