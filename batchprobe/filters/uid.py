# SPDX-License-Identifier: Apache-2.0
"""Uid: hits of tasks of some users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchprobe.filters.scope import ScopeFilter, u64

__all__ = ["Uid"]

# uid_t has 32 bits, and the kernel takes -1 for none.
_MOST = (1 << 32) - 2


class Uid(ScopeFilter):
    """Counts hits of tasks whose real user ID is one of these, as the initial user namespace has
    it (bpf_get_current_uid_gid(), kernel/bpf/helpers.c).
    """

    name = "uid"

    def __init__(self, *uids: int) -> None:
        if not uids or min(uids) < 0 or max(uids) > _MOST:
            raise ValueError(f"user IDs are numbers from 0 to {_MOST}: {uids}")
        self._uids = tuple(dict.fromkeys(uids))

    def constants(self) -> Mapping[str, int]:
        """Users are looked up."""
        return {"SCOPE_UIDS": 1}

    def arguments(self) -> Sequence[int | str]:
        """The users."""
        return self._uids

    def sets(self) -> Mapping[str, Sequence[bytes]]:
        """The users."""
        return {"scope_uids": u64(self._uids)}
