# SPDX-License-Identifier: Apache-2.0
"""Runs tools in a guest, without and with batchprobe; prints a record for each.

python3 guest.py BATCHPROBE_ROOT NAME...
"""

from __future__ import annotations

import compileall
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType

import bcc

import batchprobe
from _bcctools.compare import Run
from _bcctools.tools import TOOLS, Tool

_READY_SECONDS = 240.0
_IDLE_SECONDS = 4.0
_END_SECONDS = 120.0
_WORKLOAD = Path(__file__).with_name("workload.py")


def main(names: Sequence[str]) -> None:
    """Run these tools."""
    facts = {"kernel": os.uname().release, "bcc": bcc.__version__}
    print(json.dumps(facts), flush=True)
    # The first compilation reads clang and the headers from the disk.
    bcc.BPF(text=b"int warm(void *ctx) { return 0; }").cleanup()
    tools = {tool.name: tool for tool in TOOLS}
    local = _installed()
    for name in names:
        tool = tools[name]
        command = (f"{name}-bpfcc", *tool.arguments)
        if tool.module:
            subprocess.run(("modprobe", tool.module), check=True)
        plain = _run(tool, command)
        batched = _run(tool, (sys.executable, "-m", "batchprobe", "run", *command), local)
        record = {
            "tool": name,
            "arguments": tool.arguments,
            "plain": plain.to_json(),
            "batched": batched.to_json(),
        }
        print(json.dumps(record), flush=True)


def _installed() -> dict[str, str]:
    """A copy of the package in the guest's own file system, compiled, as pip leaves it; returns the
    environment that makes Python find it.
    """
    folder = Path("/opt/bcc-tools")
    if not folder.exists():
        shutil.copytree(Path(batchprobe.__file__).parent, folder / "batchprobe")
        compileall.compile_dir(folder, quiet=2)
    site = os.environ["PYTHONPATH"].rpartition(":")[2]
    return {"PYTHONPATH": f"{folder}:{site}"}


def _run(tool: Tool, command: Sequence[str], more: Mapping[str, str] = MappingProxyType({})) -> Run:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PYTHONUNBUFFERED": "1", "TERM": "xterm", "COLUMNS": "200", **more}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.monotonic()
        with _terminal(output.fileno()) if tool.on_terminal else nullcontext() as terminal:
            process = subprocess.Popen(
                command,
                stdin=terminal or subprocess.DEVNULL,
                stdout=terminal or output,
                stderr=errors,
                env=env,
            )
        # What draws may do so before it compiles.
        _wait_until_ready(process, None if tool.on_terminal else output.fileno())
        ready_seconds = time.monotonic() - began
        stopped = None
        if process.poll() is None:
            time.sleep(0.5)
            subprocess.run((sys.executable, _WORKLOAD), check=True)
            time.sleep(1)
            if not tool.ends:
                stopped = time.monotonic()
                process.send_signal(signal.SIGINT)
        status = _end(process)
        exit_seconds = None if stopped is None else time.monotonic() - stopped
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read())
    return Run(status, texts[0], texts[1], ready_seconds, exit_seconds)


@contextmanager
def _terminal(output: int) -> Iterator[int]:
    """A terminal for a process that is started meanwhile; what is drawn on it goes to `output`."""
    ours, theirs = pty.openpty()

    def copy() -> None:
        with suppress(OSError):  # the process has ended
            while data := os.read(ours, 1 << 16):
                os.write(output, data)
        os.close(ours)

    threading.Thread(target=copy, daemon=True).start()
    try:
        yield theirs
    finally:
        os.close(theirs)


def _end(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for its end; None if it had to be killed."""
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _wait_until_ready(process: subprocess.Popen[bytes], output: int | None) -> None:
    """Until it printed something, has been idle for a while, or ended."""
    ticks, busy = 0, time.monotonic()
    end = busy + _READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if (
            output is not None and os.fstat(output).st_size
        ) or time.monotonic() - busy > _IDLE_SECONDS:
            return
        time.sleep(0.2)
        before, ticks = ticks, _cpu_ticks(process.pid)
        if ticks > before:
            busy = time.monotonic()


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    main(sys.argv[1:])
