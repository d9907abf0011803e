# SPDX-License-Identifier: Apache-2.0
"""The two switches that stop armed probes from firing, read while probes count."""

from __future__ import annotations

from os import PathLike

from batchprobe.sys.files import read_bytes

__all__ = ["Switches"]

_KPROBES = "/sys/kernel/debug/kprobes/enabled"
_FTRACE = "/proc/sys/kernel/ftrace_enabled"


class Switches:
    """Reports a switch that was turned off, once each time. See `host.check_kprobes` and
    `host.check_ftrace` for what each stops.

    `kprobes` and `ftrace` say whether probes are there that this switch stops: a link needs no
    kprobes, and a breakpoint after the patch site needs no ftrace (nor does one at the
    entry on some architectures, so the sentence says "may").
    """

    def __init__(self, *, kprobes: bool, ftrace: bool, root: str | PathLike[str] = "") -> None:
        self._watched = [
            (f"{root}{file}", sentence)
            for watched, file, sentence in (
                (
                    kprobes,
                    _KPROBES,
                    "kprobes were disarmed (debugfs kprobes/enabled is 0): hits are not counted "
                    f"until you echo 1 > {_KPROBES}",
                ),
                (
                    ftrace,
                    _FTRACE,
                    "ftrace was switched off (kernel.ftrace_enabled is 0): hits at a function's "
                    "entry may not be counted until you run sysctl -w kernel.ftrace_enabled=1",
                ),
            )
            if watched
        ]
        self._off: set[str] = set()

    def turned_off(self) -> list[str]:
        """A sentence for each switch that is off and was on at the last call."""
        off = {path: sentence for path, sentence in self._watched if _is_off(path)}
        new = [sentence for path, sentence in off.items() if path not in self._off]
        self._off = set(off)
        return new


def _is_off(path: str) -> bool:
    try:
        return read_bytes(path).strip() == b"0"
    except OSError:
        # debugfs may not be mounted, and not every kernel has ftrace.
        return False
