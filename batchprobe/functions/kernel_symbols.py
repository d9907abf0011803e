# SPDX-License-Identifier: Apache-2.0
"""The running kernel's function table, rebuilt only when modules come or go."""

from __future__ import annotations

from threading import Lock

from batchprobe.functions.cache import SymbolCache
from batchprobe.functions.table import FunctionTable

__all__ = ["KernelSymbols"]


class KernelSymbols:
    """One session's view of the kernel's functions. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._table: FunctionTable | None = None
        self._loaded = ""
        self.cache: SymbolCache | None = None
        """The cache that `table` last looked into; it is valid for the same set of modules."""

    def table(self) -> FunctionTable:
        """The functions as they are now. Raises UnsupportedError where they cannot be read."""
        with self._lock:
            self.cache = cache = SymbolCache()
            if self._table is None or cache.loaded != self._loaded:
                self._table = FunctionTable.from_kernel(cache=cache)
                self._loaded = cache.loaded
            return self._table
