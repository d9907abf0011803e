# SPDX-License-Identifier: Apache-2.0
"""How scripts/vm packs and keeps what it boots."""

import lzma
import shutil
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest
from _vm import cache, cpio
from _vm.bzimage import plain_kernel

ELF = b"\x7fELF" + bytes(1000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BATCHPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path / "cache"


def test_built_once_and_found_again(folder: Path) -> None:
    builds = []

    def build(product: Path) -> None:
        builds.append(product)
        (product / "file").write_text("content")

    first = cache.obtain("image", "key", build)
    assert cache.obtain("image", "key", build) == first
    assert len(builds) == 1
    assert (first / "file").read_text() == "content"
    assert cache.obtain("image", "other", build) != first
    assert not list(folder.glob("*tmp*"))


def test_two_at_once_build_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builds = []
    begun, may_end = threading.Event(), threading.Event()

    def build(product: Path) -> None:
        begun.set()
        assert may_end.wait(20)
        builds.append(product)

    threads = [
        threading.Thread(target=cache.obtain, args=("image", "key", build)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    said, end = "", time.monotonic() + 20
    while said.count("waiting for another process") < 2:
        said += capsys.readouterr().err
        assert time.monotonic() < end
        time.sleep(0.001)
    may_end.set()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_an_interrupted_build_leaves_nothing(folder: Path) -> None:
    def interrupted(product: Path) -> None:
        (product / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.obtain("image", "key", interrupted)
    assert [f.name for f in folder.iterdir()] == [".image.lock"]


def test_remains_of_a_killed_build_are_removed(folder: Path) -> None:
    (folder / ".image.tmp-killed" / "product").mkdir(parents=True)
    cache.obtain("image", "key", lambda product: None)
    assert not (folder / ".image.tmp-killed").exists()


def test_keys_differ_by_where_parts_end() -> None:
    assert cache.key_of(["ab", "c"]) != cache.key_of(["a", "bc"])
    assert cache.key_of(["a"]) == cache.key_of([b"a"])


def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    if not shutil.which("cpio"):
        pytest.skip("no cpio here")
    packed = cpio.archive(
        [
            cpio.directory("sub"),
            cpio.Entry("sub/file", b"content\n"),
            cpio.Entry("link", b"sub/file", stat.S_IFLNK | 0o777),
        ]
    )
    subprocess.run(["cpio", "-id", "--quiet"], input=packed, cwd=tmp_path, check=True)
    assert (tmp_path / "link").read_text() == "content\n"
    assert stat.S_IMODE((tmp_path / "sub/file").stat().st_mode) == 0o755


def bzimage(payload: bytes) -> bytes:
    """The parts of an x86 kernel image that tell where its payload is."""
    image = bytearray(3 * 512 + 100)
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + payload + b"what follows"


def test_plain_kernel() -> None:
    size = struct.pack("<I", len(ELF))
    assert plain_kernel(bzimage(lzma.compress(ELF) + size)) == ELF
    assert plain_kernel(bzimage(b"packed in another way")) is None
    assert plain_kernel(b"MZ" + bytes(1000)) is None
