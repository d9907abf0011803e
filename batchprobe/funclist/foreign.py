# SPDX-License-Identifier: Apache-2.0
"""Entries as other tools write them, put into our spelling.

ftrace      ext4_sync_file [ext4]; vfs_read (1) R I; ffffffff81234560 vfs_read
kallsyms    ffffffffc0123450 t ext4_sync_file [ext4]
bpftrace    kprobe:vfs_read; kr:vfs_read; fentry:vmlinux:vfs_open
bcc         p::vfs_read; r:vfs_read
tracefs     p:group/event vfs_write; r8:group/event ext4:ext4_sync_file
people      vfs_read:return; vfs_read(); kernel:vfs_read; syscall:__x64_sys_openat
"""

from __future__ import annotations

import re

__all__ = ["Foreign", "syscall_of", "translate"]

# available_filter_functions_addrs and kallsyms. A symbol has a type, such as T or t.
_SYMBOL = re.compile(
    r"(?P<address>[0-9a-fA-F]{8,16})\s+(?:[A-Za-z?]\s+)?(?P<name>[^\s\[]\S*)(?:\s+\[(?P<module>[\w-]+)\])?"
)
# available_filter_functions and set_ftrace_filter have a module, enabled_functions has a count.
_FTRACE = re.compile(
    r"(?P<name>\S+)(?:\s+\[(?P<module>[\w-]+)\])?(?P<enabled>\s+\(\d+\)(?:\s.*)?)?"
)
# A definition of kprobe_events: its arguments come after the location.
_DEFINITION = re.compile(r"(?P<kind>[pr])\d*(?::\S*)?\s+(?P<location>\S+)(?P<arguments>\s+\S.*)?")
_PROVIDER = re.compile(r"(?P<provider>[A-Za-z_]+):(?P<rest>.*)")

_ENTRY_PROVIDERS = frozenset(("kprobe", "k", "p", "fentry", "kfunc", "f"))
_RETURN_PROVIDERS = frozenset(("kretprobe", "kr", "r", "fexit", "kretfunc", "fr"))
_TRACEPOINT = "a tracepoint"
_USER = "a probe in a user program"
_OTHERS = {
    **dict.fromkeys(("tracepoint", "t", "rawtracepoint", "raw_tracepoint", "rt"), _TRACEPOINT),
    **dict.fromkeys(("uprobe", "u", "uretprobe", "ur", "usdt", "U"), _USER),
    **dict.fromkeys(
        ("hardware", "h", "interval", "i", "iter", "profile", "software", "s", "watchpoint", "w"),
        "a probe of bpftrace that is on no function",
    ),
}
# What kernels of any architecture and age put before a system call's name.
_SYSCALL = re.compile(r"(?:__[a-z0-9]+_(?:compat_)?|compat_|)(?:sys|SyS)_(?P<name>\w+)")
# No function can have the name of a C keyword.
_RETURN = ":return"


class Foreign:
    """What an entry of another tool means."""

    def __init__(self, entry: str = "", *, address: int | None = None, instead: str = "") -> None:
        self.entry = entry
        """The entry in our spelling."""
        self.address = address
        """Where the function was when the line was written, which tells namesakes apart."""
        self.instead = instead
        """What it is instead of a function; empty for a function."""


def translate(text: str) -> Foreign | None:
    """What an entry without a comment means; None if it is in our spelling, or in no known one.

    Raises ValueError for one that is plainly another tool's, and has no meaning here.
    """
    bang, text = ("!", text[1:].lstrip()) if text.startswith("!") else ("", text)
    found = _translate(text)
    if found is not None and found.entry:
        found.entry = bang + found.entry
    return found


def _translate(text: str) -> Foreign | None:
    if found := _SYMBOL.fullmatch(text):
        own = _in_module(found["name"], found["module"])
        return Foreign(own, address=int(found["address"], 16))
    if (found := _FTRACE.fullmatch(text)) and (found["module"] or found["enabled"]):
        return Foreign(_in_module(found["name"], found["module"]))
    if found := _DEFINITION.fullmatch(text):
        own = _at_return(found["location"], found["kind"] == "r")
        if found["arguments"]:
            raise ValueError(f"arguments of a probe are not recorded: write {own}")
        return Foreign(own)
    return _without_space(text)


def _without_space(text: str) -> Foreign | None:
    plain = text.removesuffix("%return").removesuffix(_RETURN)
    is_return = plain != text
    plain = plain.removesuffix("()")
    found = _PROVIDER.fullmatch(plain)
    meant = _of_provider(found["provider"], found["rest"]) if found else None
    if meant is None and plain != text.removesuffix("%return"):
        meant = Foreign(plain)
    if meant is not None and meant.entry:
        meant.entry = _at_return(meant.entry, is_return)
    return meant


def syscall_of(name: str) -> str:
    """The system call that a name such as sys_openat or __x64_sys_openat means; empty if none."""
    found = _SYSCALL.fullmatch(name)
    return found["name"] if found else ""


def _of_provider(provider: str, rest: str) -> Foreign | None:
    if provider in _ENTRY_PROVIDERS or provider in _RETURN_PROVIDERS:
        # bcc leaves the library empty, which stands for the kernel.
        return Foreign(_at_return(rest.removeprefix(":"), provider in _RETURN_PROVIDERS))
    if provider in _OTHERS:
        return Foreign(instead=_OTHERS[provider])
    if provider == "kernel":
        return Foreign(f"vmlinux:{rest}")
    if provider == "syscall" and (name := syscall_of(rest)):
        return Foreign(f"syscall:{name}")
    return None


def _in_module(name: str, module: str | None) -> str:
    return f"{module}:{name}" if module else name


def _at_return(entry: str, is_return: bool) -> str:
    return f"{entry}%return" if is_return and not entry.endswith("%return") else entry
