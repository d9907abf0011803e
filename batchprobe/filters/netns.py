# SPDX-License-Identifier: Apache-2.0
"""NetNamespace: hits of tasks in some network namespaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from batchprobe.filters.scope import ScopeFilter, u64
from batchprobe.kernel.btf import kernel_btf

__all__ = ["NetNamespace"]


class NetNamespace(ScopeFilter):
    """Counts hits of tasks in these network namespaces, given by inode number as
    `stat -Lc %i /proc/PID/ns/net` prints it (`batchprobe.kernel.netns` finds it by name).

    The namespace is that of the current task: in softirq a packet may belong to another. Raises
    UnsupportedError where the kernel has no BTF, whose offsets it needs.
    """

    name = "netns"

    def __init__(self, *inodes: int) -> None:
        if not inodes or min(inodes) <= 0:
            raise ValueError(f"inode numbers are positive: {inodes}")
        self._inodes = tuple(dict.fromkeys(inodes))

    def constants(self) -> Mapping[str, int]:
        """Where the kernel keeps the number."""
        return self._offsets

    @cached_property
    def _offsets(self) -> Mapping[str, int]:
        with kernel_btf() as btf:
            return {
                "SCOPE_NETS": 1,
                "TASK_NSPROXY_AT": btf.offset("task_struct", "nsproxy"),
                "NSPROXY_NET_AT": btf.offset("nsproxy", "net_ns"),
                "NET_INODE_AT": btf.offset("net", "ns", "inum"),
            }

    def arguments(self) -> Sequence[int | str]:
        """The namespaces."""
        return self._inodes

    def sets(self) -> Mapping[str, Sequence[bytes]]:
        """The namespaces."""
        return {"scope_nets": u64(self._inodes)}
