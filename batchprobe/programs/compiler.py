# SPDX-License-Identifier: Apache-2.0
"""Compiles programs with bcc where none are shipped, and keeps the result for the next start."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Set
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from batchprobe.errors import UnsupportedError, bcc_is_missing
from batchprobe.programs.bcc_child import BAD_SOURCE
from batchprobe.programs.program import Program, from_text
from batchprobe.programs.source import ProgramSource
from batchprobe.sys import cache_file

__all__ = ["Compiler", "compile_now", "headers"]

_CHILD = "batchprobe.programs.bcc_child"


class Compiler:
    """One compilation, in a child process, for the running kernel.

    Its result serves the rest of this process, and through a cache file later ones on this kernel.
    Raises UnsupportedError where bcc or the kernel's headers are missing.
    """

    _compiled: ClassVar[dict[str, dict[str, Program]]] = {}

    def __init__(self, source: ProgramSource) -> None:
        self._text = source.text
        self._names = set(source.programs)
        self._child: subprocess.Popen[str] | None = None
        if self._text in Compiler._compiled:
            return
        self._cache = _cache_file(self._text)
        programs = _read_cache(self._cache, self._names)
        if programs is None:
            _require_bcc_and_headers()
            self._child = _start(source)
        else:
            Compiler._compiled[self._text] = programs

    def wait(self, timeout: float | None = None) -> dict[str, Program] | None:
        """The programs by name, or None if they are not ready within `timeout` seconds.

        Raises UnsupportedError with clang's output where bcc cannot compile.
        """
        if self._child is not None:
            try:
                out, err = self._child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                return None
            status = self._child.returncode
            self._child = None
            if status != 0:
                raise _cannot_compile(status, err)
            Compiler._compiled[self._text] = from_text(out)
            cache_file.write(self._cache, out.encode())
        return Compiler._compiled[self._text]

    def close(self) -> None:
        """End the child if it still compiles."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def compile_now(source: ProgramSource) -> dict[str, Program]:
    """The programs as bcc compiles them here; waits for it. Raises UnsupportedError."""
    _require_bcc_and_headers()
    done = subprocess.run(
        **_command(), input=_request(source), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise _cannot_compile(done.returncode, done.stderr)
    return from_text(done.stdout)


def _start(source: ProgramSource) -> subprocess.Popen[str]:
    with tempfile.TemporaryFile("w+") as request:
        request.write(_request(source))
        request.seek(0)
        return subprocess.Popen(
            **_command(),
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is for the parent to answer
        )


def _command() -> dict[str, Any]:
    """Arguments of Popen for the child.

    It imports this very package and nothing from the working directory, because the parent may be
    root in another user's /tmp.
    """
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        "args": [sys.executable, "-P", "-m", _CHILD],
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    }


def _request(source: ProgramSource) -> str:
    return json.dumps(source._asdict())


def headers() -> Path | None:
    """Where bcc finds the running kernel's headers; None if it would find none."""
    build = Path("/lib/modules") / os.uname().release / "build"
    for candidate in (Path(os.environ.get("BCC_KERNEL_SOURCE", build)), build):
        if (candidate / "include").is_dir():
            return candidate
    kheaders = Path("/sys/kernel/kheaders.tar.xz")
    return kheaders if kheaders.exists() else None


def _require_bcc_and_headers() -> None:
    if find_spec("bcc") is None:
        raise bcc_is_missing()
    if headers() is None:
        release = os.uname().release
        raise UnsupportedError(
            f"no headers for the running kernel {release}",
            remedy=f"apt install linux-headers-{release}, or dnf install kernel-devel-{release}",
        )


def _cannot_compile(status: int, output: str) -> UnsupportedError:
    if status == BAD_SOURCE:
        return UnsupportedError(f"the C of an action or a filter: {output.strip()}")
    return UnsupportedError(
        f"bcc could not compile the programs (exit status {status}):\n{output.strip()}",
        remedy="do python3-bpfcc and the kernel headers match this kernel?",
    )


def _cache_file(text: str) -> Path:
    # sudo may keep HOME, so the owner of the file is checked when it is read.
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kernel = os.uname()
    key = "\0".join((text, kernel.release, kernel.version, kernel.machine))
    return base / "batchprobe" / "programs" / f"{hashlib.sha256(key.encode()).hexdigest()}.txt"


def _read_cache(file: Path, names: Set[str]) -> dict[str, Program] | None:
    try:
        programs = from_text(bytes(cache_file.read(file) or b"").decode())
    except ValueError:
        programs = {}
    # Absent or damaged: it is compiled again.
    return programs if programs.keys() == names else None
