# SPDX-License-Identifier: Apache-2.0
"""Record the running kernel's lists of functions, reduced to what the tests need.

Usage, as root in a virtual machine: python3 record.py DIRECTORY
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")
DEBUGFS = Path("/sys/kernel/debug")

CORE = re.compile(
    r"""_s?text | _etext | _[se]inittext | _sdata | _edata | __init_begin | __init_end
    | linux_banner | jiffies | tcp_memory_pressure | \.E_\w+
    | (?:__pfx_)?(?:
        vfs_\w+ | ksys_\w+ | tcp_(?:send|recv)\w* | tcp_v[46]_\w+ | tcp_init | udp_sendmsg
        | type_show | do_int3 | __die\w* | rest_init | kernel_init_freeable
        | init_once | parse_options
        | file_tty_write | tcp_add_reno_sack
        | __(?:x64|ia32|do|se)_sys_(?:get\w*id|open\w*|read|write|close)
    )(?:\.\S+)?""",
    re.VERBOSE,
)
WHOLE_MODULES = ("crc16", "mbcache", "virtio_blk", "bpf", "__builtin__ftrace", "__builtin__kprobes")
EXT4 = re.compile(
    r"(?:__pfx_)?(?:ext4_(?:file|sync|release|create|get_[a-l])\w*|init_once|parse_options)(?:\.\S+)?"
)


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(exist_ok=True)
    subprocess.run(["modprobe", "-a", "ext4", "virtio_blk"], check=True)
    for kind, where in (("tracefs", TRACEFS), ("debugfs", DEBUGFS)):
        subprocess.run(["mount", "-t", kind, kind, str(where)], check=False, capture_output=True)
    program = load_program()
    # ftrace-based kprobes and breakpoints each add code pages that kallsyms lists. An instruction
    # starts at either +5 or +9.
    define("p:recorded/on_ftrace vfs_read\n")
    for offset in (5, 9):
        with contextlib.suppress(OSError):
            define(f"p:recorded/at_{offset} vfs_write+{offset}\n")
    (TRACEFS / "events/recorded/enable").write_text("1")

    lines = Path("/proc/kallsyms").read_text().splitlines(keepends=True)
    kept = [line for line, keep in zip(lines, wanted(lines), strict=True) if keep]
    (directory / "kallsyms").write_text("".join(kept))
    symbols = {" ".join(line.split()[2:]) for line in kept}
    listed = (TRACEFS / "available_filter_functions").read_text().splitlines(keepends=True)
    invalid = [line for line in listed if line.startswith("__ftrace_invalid")][:3]
    traceable = [line for line in listed if line.strip() in symbols]
    (directory / "available_filter_functions").write_text("".join(invalid + traceable))
    forbidden = (DEBUGFS / "kprobes/blacklist").read_text().splitlines(keepends=True)
    forbidden = [line for line in forbidden if line.split(None, 1)[1].strip() in symbols]
    (directory / "blacklist").write_text("".join(forbidden))
    (directory / "modules").write_text(Path("/proc/modules").read_text())
    (directory / "release").write_text(Path("/proc/sys/kernel/osrelease").read_text())
    del program


def define(probe: str) -> None:
    # open(..., "a") would seek, which tracefs refuses.
    events = os.open(TRACEFS / "kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(events, probe.encode())
    finally:
        os.close(events)


def load_program() -> object:
    """Load a BPF program, so that kallsyms lists it."""
    from bcc import BPF  # noqa: PLC0415  (installed in the guest only)

    program = BPF(
        text="int recorded(void *context) { return 0; }", cflags=["-Wno-ignored-attributes"]
    )
    program.load_func("recorded", BPF.SOCKET_FILTER)
    return program


def wanted(lines: list[str]) -> list[bool]:
    """Select the lines to keep; in the core kernel with neighbours, so that sizes are right."""
    keep = [False] * len(lines)
    for number, line in enumerate(lines):
        name, *module = line.split()[2:]
        if not module and CORE.fullmatch(name):
            for near in range(max(number - 1, 0), number + 4):
                keep[near] = True
        elif module:
            module_name = module[0].strip("[]")
            keep[number] |= module_name in WHOLE_MODULES
            keep[number] |= module_name == "ext4" and bool(EXT4.fullmatch(name))
    return keep


if __name__ == "__main__":
    main()
