"""The BPF programs of bpf/ where none are shipped: compiled by bcc in a child process, and kept."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from batchprobe.arch import Arch
from batchprobe.errors import UnsupportedError
from batchprobe.programs import child, program
from batchprobe.programs.program import PROGRAMS, Program
from batchprobe.sys import cache_file

__all__ = ["Compiler", "build", "headers", "parse"]

_HEAD = '"""Built from bpf/ by scripts/build-programs: not to be edited."""\n\n'


class Compiler:
    """The programs, compiled in a child process meanwhile: for this kernel, and so kept for it.

    Once they are there, they serve the whole process.
    """

    _ready: ClassVar[dict[str, Program] | None] = None

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        if Compiler._ready is not None:
            return
        source = program.source()
        self._cache = _cache_file(source)
        Compiler._ready = _read_cache(self._cache)
        if Compiler._ready is None:
            _require_bcc_and_headers()
            self._child = _compile(source)

    def wait(self, timeout: float | None = None) -> dict[str, Program] | None:
        """The programs by name, or None if they are not ready within `timeout` seconds.

        Raises UnsupportedError where bcc cannot compile, with what clang said.
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
            Compiler._ready = parse(out)
            cache_file.write(self._cache, out.encode())
        return Compiler._ready

    def close(self) -> None:
        """End the child, if it still compiles."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _compile(text: str) -> subprocess.Popen[str]:
    with tempfile.TemporaryFile("w+") as source:
        source.write(text)
        source.seek(0)
        return subprocess.Popen(
            **child.arguments("programs.bcc_child", *PROGRAMS),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is ours to answer
        )


def build(adapter: Arch | None = None) -> str:
    """What is shipped for this machine, or the adapter's: the programs as bcc compiles them here.

    A module of Python, for that is read fastest.

    The adapter's must be of this machine's byte order. Raises UnsupportedError like
    `Compiler.wait`.
    """
    source = program.source(adapter)
    _require_bcc_and_headers()
    done = subprocess.run(
        **child.arguments("programs.bcc_child", *PROGRAMS),
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise _cannot_compile(done.returncode, done.stderr)
    shipped = {"source": source.splitlines(), "programs": json.loads(done.stdout)}
    return f"{_HEAD}SHIPPED = {json.dumps(shipped, indent=1)}\n"


def headers() -> Path | None:
    """Where bcc finds the running kernel's headers, None if it would not."""
    build = Path("/lib/modules") / os.uname().release / "build"
    for candidate in (Path(os.environ.get("BCC_KERNEL_SOURCE", build)), build):
        if (candidate / "include").is_dir():
            return candidate
    kheaders = Path("/sys/kernel/kheaders.tar.xz")
    return kheaders if kheaders.exists() else None


def _require_bcc_and_headers() -> None:
    if find_spec("bcc") is None:
        raise UnsupportedError(
            "bcc's Python module is missing",
            remedy="on Debian and Ubuntu: apt install python3-bpfcc; on Fedora: dnf install "
            "python3-bcc; the package 'bcc' on PyPI is something else; a venv needs "
            "--system-site-packages",
        )
    if headers() is None:
        release = os.uname().release
        raise UnsupportedError(
            f"no headers for the running kernel {release}",
            remedy=f"apt install linux-headers-{release}, or dnf install kernel-devel-{release}",
        )


def _cannot_compile(status: int, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"bcc could not compile the programs (exit {status}):\n{why.strip()}",
        remedy="do python3-bpfcc and the kernel headers match this kernel?",
    )


def parse(text: str) -> dict[str, Program]:
    """The programs that `batchprobe.programs.bcc_child` printed."""
    return program.made_of(json.loads(text))


def _cache_file(source: str) -> Path:
    # sudo may keep HOME: the file's owner is checked when it is read.
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kernel = os.uname()
    key = "\0".join((source, kernel.release, kernel.version, kernel.machine))
    return base / "batchprobe" / "programs" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _read_cache(file: Path) -> dict[str, Program] | None:
    try:
        return parse(bytes(cache_file.read(file) or b"").decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        # Absent or damaged: compiling makes it anew.
        return None
