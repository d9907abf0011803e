# SPDX-License-Identifier: Apache-2.0
"""Reads kernel code through /proc/kcore."""

from __future__ import annotations

import os
import struct
from os import PathLike

__all__ = ["Kcore"]

# By EI_CLASS: layout of the ELF header, layout of a program header, and the positions of p_offset,
# p_vaddr and p_filesz in the latter.
_EI_CLASS = 4
_ELF = {
    1: (struct.Struct("=16sHHIIIIIHHHHHH"), struct.Struct("=IIIIIIII"), (1, 2, 4)),
    2: (struct.Struct("=16sHHIQQQIHHHHHH"), struct.Struct("=IIQQQQQQ"), (2, 3, 5)),
}
_PT_LOAD = 1


class Kcore:
    """The kernel's memory by address, opened at the first read.

    /proc/kcore needs CONFIG_PROC_KCORE and CAP_SYS_RAWIO, and is unreadable under lockdown level
    confidentiality (kernel_lockdown(7)). `read` then returns None, and `reason` says why.
    """

    def __init__(self, path: str | PathLike[str] = "/proc/kcore") -> None:
        self.reason = ""
        self._path = path
        self._fd = -1
        # (start address, end address, file offset); None before the file is opened.
        self._segments: list[tuple[int, int, int]] | None = None

    def _open(self) -> list[tuple[int, int, int]]:
        segments = []
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            head = os.pread(self._fd, 64, 0)
            elf_header, program_header, (p_offset, p_vaddr, p_filesz) = _ELF[head[_EI_CLASS]]
            header = elf_header.unpack_from(head)
            e_phoff, e_phentsize, e_phnum = header[5], header[9], header[10]
            table = os.pread(self._fd, e_phentsize * e_phnum, e_phoff)
            for at in range(0, len(table), e_phentsize):
                fields = program_header.unpack_from(table, at)
                if fields[0] == _PT_LOAD:
                    address = fields[p_vaddr]
                    segments.append((address, address + fields[p_filesz], fields[p_offset]))
        except OSError as error:
            return self._fail(str(error))
        except (struct.error, LookupError):
            return self._fail(f"{self._path} is not an ELF file")
        return segments

    def _fail(self, reason: str) -> list[tuple[int, int, int]]:
        self.close()
        self.reason = reason
        return []

    def read(self, address: int, size: int) -> bytes | None:
        """Read up to `size` bytes at `address`; None if they cannot be read."""
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
        """Close the file. Later reads return None."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._segments = []
