# SPDX-License-Identifier: Apache-2.0
"""Names of the addresses on a stack."""

from __future__ import annotations

from batchprobe.functions.table import FunctionTable

__all__ = ["KernelAddresses"]


class KernelAddresses:
    """Names of the kernel's addresses, with offsets. Inlined functions have no name of their own:
    their code counts as that of the function which has it.
    """

    def __init__(self, table: FunctionTable) -> None:
        self._table = table
        self._known: dict[tuple[int, bool], str] = {}

    def name(self, ip: int, *, is_return: bool) -> str:
        """`vfs_read+0x1c`, or `ext4_file_write_iter+0x20 [ext4]`; empty if there is no function.

        A return address follows the call, and may be the next function's if that never returns.
        """
        key = ip, is_return
        if key not in self._known:
            self._known[key] = self._looked_up(ip, is_return)
        return self._known[key]

    def _looked_up(self, ip: int, is_return: bool) -> str:
        found = self._table.function_at(ip - is_return)
        if found is None:
            return ""
        function, offset = found
        module = f" [{function.module}]" if function.module else ""
        return f"{function.name}+{offset + is_return:#x}{module}"
