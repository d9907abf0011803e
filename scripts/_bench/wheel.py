# SPDX-License-Identifier: Apache-2.0
"""The wheel of the checkout, which pip installs in the guest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from _vm.cache import key_of

_FOLDERS = ("batchprobe", "bpf")
_FILES = ("pyproject.toml", "README.md", "docs/batchprobe.1")


def obtain(checkout: Path, cache: Path) -> Path:
    """The wheel; built only if something that goes into it has changed."""
    folder = cache / f"wheel-{key_of(_content(checkout))}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".wheel-", dir=cache))
        try:
            build(checkout, scratch)
            for old in cache.glob("wheel-*"):
                shutil.rmtree(old)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def build(checkout: Path, folder: Path) -> None:
    """Build the wheel with pip."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(checkout)],
        # The caller's standard output may be read by a program.
        stdout=sys.stderr,
        check=True,
    )


def _content(checkout: Path) -> Iterator[str | bytes]:
    files = [checkout / name for name in _FILES]
    for name in _FOLDERS:
        for folder, _, found in os.walk(checkout / name, followlinks=True):
            files += (Path(folder, file) for file in found if not file.endswith(".pyc"))
    for path in sorted(files):
        yield str(path.relative_to(checkout))
        yield path.read_bytes()
