# SPDX-License-Identifier: Apache-2.0
"""Directories that are built once, atomically, and shared by all checkouts."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from _vm.errors import VmError
from _vm.run import progress

_UNUSED_DAYS = 7


def cache_dir() -> Path:
    """The directory of the images."""
    if own := os.environ.get("BATCHPROBE_CACHE"):
        return Path(own).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "batchprobe"
    return Path.home() / ".cache" / "batchprobe"


def key_of(parts: Iterable[str | bytes]) -> str:
    """A short hash of everything that the product depends on."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def source_of(file: str) -> bytes:
    """A module's source, as a part of a key: a changed recipe makes a new product."""
    return Path(file).read_bytes()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of this name."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / f".{name}.lock").open("w")
    except OSError as error:
        text = f"cannot write to {folder}: {error.strerror} (BATCHPROBE_CACHE sets another place)"
        raise VmError(text) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process to build {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def obtain(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The finished directory NAME-KEY; `build` fills it if it is not there yet."""
    folder = cache_dir()
    finished = folder / f"{name}-{key}"
    if not finished.is_dir():
        with locked(name):
            if not finished.is_dir():
                _build(name, finished, build)
                _prune(name, finished)
    with suppress(PermissionError):
        os.utime(finished)
    return finished


def _build(name: str, finished: Path, build: Callable[[Path], None]) -> None:
    if os.geteuid() != 0:
        raise VmError(
            f"{finished} is missing and only root can build it:"
            f" BATCHPROBE_CACHE={finished.parent} scripts/vm --prepare"
        )
    for left in finished.parent.glob(f".{name}.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)
    started = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.tmp-", dir=finished.parent))
    try:
        product = scratch / "product"
        product.mkdir()
        build(product)
        for file in product.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        product.rename(finished)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress(f"{name} is ready after {time.monotonic() - started:.0f} s, kept in {finished}")


def _prune(name: str, finished: Path) -> None:
    """Remove versions of `name` that no checkout has used for a week."""
    limit = time.time() - _UNUSED_DAYS * 86400
    for other in finished.parent.glob(f"{name}-*"):
        if other != finished and other.stat().st_mtime < limit:
            shutil.rmtree(other, ignore_errors=True)
