"""The kernel's own code, read through /proc/kcore."""

from __future__ import annotations

import os
import struct
from pathlib import Path

__all__ = ["KernelText"]

_ELF64_HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
_ELF64_SEGMENT = struct.Struct("=IIQQQQQQ")
_PT_LOAD = 1


class KernelText:
    """Bytes at kernel addresses.

    Nothing can be read where /proc/kcore is absent or locked down (kernel_lockdown(7),
    confidentiality): `read` then says None, and `reason` says why.
    """

    def __init__(self, path: Path = Path("/proc/kcore")) -> None:
        self.reason = ""
        self._fd = -1
        self._segments: list[tuple[int, int, int]] = []
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            header = _ELF64_HEADER.unpack(os.pread(self._fd, _ELF64_HEADER.size, 0))
            segments_at, segment_size, segment_count = header[5], header[9], header[10]
            table = os.pread(self._fd, segment_size * segment_count, segments_at)
            for at in range(0, len(table), segment_size):
                kind, _, offset, address, _, size, _, _ = _ELF64_SEGMENT.unpack_from(table, at)
                if kind == _PT_LOAD:
                    self._segments.append((address, address + size, offset))
        except (OSError, struct.error) as error:
            self.reason = str(error)
            self.close()

    def read(self, address: int, size: int) -> bytes | None:
        """Up to `size` bytes at `address`, None if they cannot be read."""
        for start, end, offset in self._segments:
            if start <= address < end:
                try:
                    data = os.pread(self._fd, min(size, end - address), offset + address - start)
                except OSError as error:
                    self.reason = str(error)
                    return None
                return data or None
        return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._segments = []
