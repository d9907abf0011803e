"""The BPF programs of bpf/: shipped as bytecode, or compiled through bcc; loaded once per bank."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from batchprobe import arch, child, kept, syscalls
from batchprobe.arch import Arch
from batchprobe.errors import UnsupportedError

if TYPE_CHECKING:
    import subprocess

__all__ = [
    "COMPILE",
    "HASH_BITS",
    "MOST_PLACE_BITS",
    "PROGRAMS",
    "Compiler",
    "Program",
    "are_shipped",
    "build",
    "headers",
]

PROGRAMS = ("by_ip", "by_link", "by_func_ip", "by_running_kprobe")
COMPILE = "BATCHPROBE_COMPILE"
"""The environment variable that asks for compiling whatever is shipped."""
HASH_BITS = 32
"""Width of the product of an instruction pointer, of which the highest bits name its place."""
MOST_PLACE_BITS = 18
"""There are at most 2 to this many places, 4 MiB of them."""
_EPOCH = 1164988227  # stands for a link's
_INSTRUCTION_SIZE = 8


class Program(NamedTuple):
    """Bytecode whose maps, and some numbers, are still names."""

    name: str
    code: bytes
    # Which instruction loads the address of which map.
    maps: tuple[tuple[int, str], ...]
    # Likewise numbers: PLACE_SHIFT, EPOCH.
    constants: tuple[tuple[int, str], ...] = ()

    def load(self, operands: Mapping[str, int], *, attach_type: int = 0) -> int:
        """Load it on these maps, with these numbers; returns its fd. Raises KernelError."""
        return syscalls.prog_load(self.name, self.code_with(operands), attach_type=attach_type)

    def code_with(self, operands: Mapping[str, int]) -> bytes:
        """The bytecode with these maps and numbers in it."""
        code = bytearray(self.code)
        for index, name in (*self.maps, *self.constants):
            at = index * _INSTRUCTION_SIZE + 4
            code[at : at + 4] = operands[name].to_bytes(4, sys.byteorder)
        return bytes(code)


class Compiler:
    """The programs: shipped for this machine, or compiled in a child process meanwhile.

    The shipped ones use no struct of the kernel's but pt_regs, and so fit every kernel of the
    architecture. They serve as long as they were built from what bpf/ says. Once they are there,
    they serve the whole process.
    """

    _ready: ClassVar[dict[str, Program] | None] = None

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        if Compiler._ready is not None:
            return
        source = _source()
        Compiler._ready = _shipped(source)
        if Compiler._ready is None:
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
            import subprocess  # noqa: PLC0415  (only on the way to a compile)

            try:
                out, err = self._child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                return None
            status = self._child.returncode
            self._child = None
            if status != 0:
                raise _cannot_compile(status, err)
            Compiler._ready = _parse(out)
            kept.write(self._cache, out.encode())
        return Compiler._ready

    def close(self) -> None:
        """End the child, if it still compiles."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _compile(text: str) -> subprocess.Popen[str]:
    import subprocess  # noqa: PLC0415  (likewise)
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryFile("w+") as source:
        source.write(text)
        source.seek(0)
        return subprocess.Popen(
            **child.arguments("compile", *PROGRAMS),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is ours to answer
        )


def are_shipped() -> bool:
    """Whether no compiler is needed on this machine."""
    return _shipped(_source()) is not None


def build(adapter: Arch | None = None) -> str:
    """What is shipped for this machine, or the adapter's: the programs as bcc compiles them here.

    The adapter's must be of this machine's byte order. Raises UnsupportedError like
    `Compiler.wait`.
    """
    import subprocess  # noqa: PLC0415  (likewise)

    source = _source(adapter)
    _require_bcc_and_headers()
    done = subprocess.run(
        **child.arguments("compile", *PROGRAMS),
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise _cannot_compile(done.returncode, done.stderr)
    shipped = {"source": source.splitlines(), "programs": json.loads(done.stdout)}
    return json.dumps(shipped, indent=1) + "\n"


def headers() -> Path | None:
    """Where bcc finds the running kernel's headers, None if it would not."""
    build = Path("/lib/modules") / os.uname().release / "build"
    for candidate in (Path(os.environ.get("BCC_KERNEL_SOURCE", build)), build):
        if (candidate / "include").is_dir():
            return candidate
    kheaders = Path("/sys/kernel/kheaders.tar.xz")
    return kheaders if kheaders.exists() else None


def _require_bcc_and_headers() -> None:
    from importlib.util import find_spec  # noqa: PLC0415  (only on the way to a compile)

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


def _shipped(source: str) -> dict[str, Program] | None:
    """The programs built from `source` for this machine, if they are shipped."""
    if os.environ.get(COMPILE):
        return None
    file = Path(__file__).resolve().parent / "prebuilt" / f"{arch.current().name}.json"
    try:
        shipped = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    # Somebody may have changed bpf/ and not built yet.
    return _programs(shipped["programs"]) if shipped["source"] == source.splitlines() else None


def _source(adapter: Arch | None = None) -> str:
    """The programs in C, for this machine or the adapter's."""
    adapter = adapter or arch.current()
    package = Path(__file__).resolve().parent
    # Installed, bpf/ is inside the package; in a checkout it is beside it.
    folder = next(f for f in (package / "bpf", package.parent / "bpf") if f.is_dir())
    files = ("hit.h", *(f"{program}.c" for program in PROGRAMS))
    return "".join((_facts(adapter), *((folder / name).read_text() for name in files)))


def _facts(adapter: Arch) -> str:
    """What the programs ask of the architecture; no header of the kernel's tells it everywhere."""
    at = adapter.registers.instruction_pointer
    shared = "#define CELLS_ARE_SHARED\n" if adapter.may_tell_wrong_cpu else ""
    return (
        f"#define WORD u{adapter.bits}\n#define INSTRUCTION_POINTER_AT {at}\n"
        f"#define PLACE_SHIFT {HASH_BITS - MOST_PLACE_BITS}\n#define EPOCH {_EPOCH}\n{shared}"
    )


def _parse(text: str) -> dict[str, Program]:
    return _programs(json.loads(text))


def _programs(entries: Mapping[str, Any]) -> dict[str, Program]:
    return {
        name: Program(
            name,
            bytes.fromhex(entry["code"]),
            tuple((index, map_name) for index, map_name in entry["maps"]),
            tuple((index, constant) for index, constant in entry["constants"]),
        )
        for name, entry in entries.items()
    }


def _cache_file(source: str) -> Path:
    import hashlib  # noqa: PLC0415  (likewise)

    # sudo may keep HOME: the file's owner is checked when it is read.
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kernel = os.uname()
    key = "\0".join((source, kernel.release, kernel.version, kernel.machine))
    return base / "batchprobe" / "programs" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _read_cache(file: Path) -> dict[str, Program] | None:
    try:
        return _parse((kept.read(file) or b"").decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        # Absent or damaged: compiling makes it anew.
        return None
