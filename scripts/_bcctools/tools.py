# SPDX-License-Identifier: Apache-2.0
"""Debian's bcc tools that use kprobes, and how each is run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOOLS", "Tool"]


@dataclass(frozen=True)
class Tool:
    """A tool of bpfcc-tools."""

    name: str
    """Without Debian's ending."""
    arguments: tuple[str, ...] = ()
    exact: str = ""
    """A regex of output lines that must be equal, numbers included: what only the workload does."""
    ends: bool = False
    """Whether it ends by itself with these arguments; else it gets SIGINT."""
    module: str = ""
    """The module that has the functions."""
    on_terminal: bool = False
    """Whether it draws on a terminal, with curses."""

    @property
    def is_slow(self) -> bool:
        """Whether it includes the headers of the network, which clang reads for a minute."""
        return self.name.startswith(("tcp", "bindsnoop", "nfs", "sofdsnoop", "solisten"))


# Hit by nothing else in a guest: 20 times each.
_CALLS = ("vfs_fallocate", "generic_fadvise")
_PATTERN = f"^({'|'.join(_CALLS)})$"
_EITHER = "|".join(_CALLS)
_LIBC = "/lib/x86_64-linux-gnu/libc.so.6"

TOOLS = (
    Tool(
        "argdist",
        (
            *("-i", "15", "-n", "1", "-C"),
            "p::vfs_fallocate(void *f, int mode, u64 offset):u64:offset",
        ),
        r"\d+ +offset =",
        ends=True,
    ),
    Tool("bindsnoop"),
    Tool("biolatency"),
    Tool("biosnoop"),
    Tool("biotop", ("-C", "2", "2"), ends=True),
    Tool("btrfsdist", module="btrfs"),
    Tool("btrfsslower", ("0",), module="btrfs"),
    Tool("cachestat", ("2", "2"), ends=True),
    Tool("cachetop", ("2",), on_terminal=True),
    Tool("capable"),
    Tool("compactsnoop"),
    Tool("cpudist"),
    Tool("dcsnoop", ("-a",)),
    Tool("dcstat", ("2", "2"), ends=True),
    Tool("deadlock", ("--binary", _LIBC, "1")),
    Tool("dirtop", ("-C", "-d", "/root", "2", "2"), ends=True),
    Tool("execsnoop"),
    Tool("ext4dist"),
    Tool("ext4slower", ("0",)),
    Tool("filegone"),
    Tool("filelife"),
    # Not 0: it would report each line that it prints itself, and miss Ctrl-C while it does.
    Tool("fileslower", ("1",)),
    Tool("filetop", ("-C", "2", "2"), ends=True),
    Tool("funccount", ("-r", _PATTERN), _EITHER),
    Tool("funcinterval", ("vfs_fallocate",)),
    Tool("funclatency", ("-F", "-r", _PATTERN), f"Function = ({_EITHER})"),
    Tool("funcslower", ("-u", "0", *_CALLS)),
    Tool("inject", ("kmalloc", "-P", "0.000001", "vfs_fallocate()")),
    # Without -s it reports our SIGINT, and misses it while it does.
    Tool("killsnoop", ("-s", "15")),
    Tool("klockstat", ("-d", "3"), ends=True),
    Tool("mdflush", module="md_mod"),
    Tool("mountsnoop"),
    Tool("nfsdist", module="nfs"),
    Tool("nfsslower", ("0",), module="nfs"),
    Tool("offcputime", ("-K",)),
    Tool("offwaketime", ("-K",)),
    Tool("oomkill"),
    Tool("opensnoop"),
    Tool("pidpersec"),
    Tool("readahead", ("-d", "4"), ends=True),
    Tool("runqlat"),
    Tool("runqslower", ("1000",)),
    Tool("shmsnoop"),
    Tool("slabratetop", ("-C", "2", "2"), ends=True),
    Tool("sofdsnoop"),
    Tool("solisten"),
    Tool("stackcount", ("-K", "vfs_fallocate"), r"^ +\d+$"),
    Tool("statsnoop"),
    Tool("syncsnoop"),
    Tool("tcpaccept"),
    Tool("tcpcong"),
    Tool("tcpconnect"),
    Tool("tcpconnlat"),
    Tool("tcpdrop"),
    Tool("tcplife"),
    Tool("tcpretrans"),
    Tool("tcprtt"),
    Tool("tcpstates"),
    Tool("tcpsubnet", ("-i", "2", "127.0.0.0/8")),
    Tool("tcpsynbl"),
    Tool("tcptop", ("-C", "2", "2"), ends=True),
    Tool("tcptracer"),
    Tool(
        "trace",
        (
            "-K",
            'p::vfs_fallocate(void *f, int mode, u64 offset) "offset %d", offset',
            'r::generic_fadvise "%d", retval',
        ),
    ),
    Tool("ttysnoop", ("-C", "/dev/ttyS0")),
    Tool("vfscount"),
    Tool("vfsstat", ("2", "2"), ends=True),
    Tool("virtiostat", ("2", "2"), ends=True),
    Tool("wakeuptime"),
    Tool("xfsdist", module="xfs"),
    Tool("xfsslower", ("0",), module="xfs"),
    Tool("zfsdist"),
    Tool("zfsslower", ("0",)),
)
