"""The kernel's own code, read through /proc/kcore."""

from __future__ import annotations

import os
import struct
from os import PathLike

__all__ = ["KernelText"]

_CLASS_AT = 4
# By the class in its ident: the file's header, a segment's, and where that has offset, address and
# size.
_ELF = {
    1: (struct.Struct("=16sHHIIIIIHHHHHH"), struct.Struct("=IIIIIIII"), (1, 2, 4)),
    2: (struct.Struct("=16sHHIQQQIHHHHHH"), struct.Struct("=IIQQQQQQ"), (2, 3, 5)),
}
_PT_LOAD = 1


class KernelText:
    """Bytes at kernel addresses.

    Nothing can be read where /proc/kcore is absent or locked down (kernel_lockdown(7),
    confidentiality): `read` then says None, and `reason` says why.
    """

    def __init__(self, path: str | PathLike[str] = "/proc/kcore") -> None:
        self.reason = ""
        self._path = path
        self._fd = -1
        # From, to, and where in the file; None until it is opened.
        self._segments: list[tuple[int, int, int]] | None = None

    def _open(self) -> list[tuple[int, int, int]]:
        segments = []
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            begin = os.pread(self._fd, 64, 0)
            elf_header, segment, (offset_at, address_at, size_at) = _ELF[begin[_CLASS_AT]]
            header = elf_header.unpack_from(begin)
            segments_at, segment_size, segment_count = header[5], header[9], header[10]
            table = os.pread(self._fd, segment_size * segment_count, segments_at)
            for at in range(0, len(table), segment_size):
                fields = segment.unpack_from(table, at)
                if fields[0] == _PT_LOAD:
                    address = fields[address_at]
                    segments.append((address, address + fields[size_at], fields[offset_at]))
        except (OSError, struct.error, LookupError) as error:
            self.close()
            self.reason = str(error) if isinstance(error, OSError) else f"{self._path} is no ELF"
            segments = []
        return segments

    def read(self, address: int, size: int) -> bytes | None:
        """Up to `size` bytes at `address`, None if they cannot be read."""
        if self._segments is None:
            self._segments = self._open()
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
