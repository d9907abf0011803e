# SPDX-License-Identifier: Apache-2.0
"""Reading /proc/kcore: an ELF file of the machine's word size."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from batchprobe.kernel.kcore import Kcore

IDENT = {32: b"\x7fELF\x01\x01\x01", 64: b"\x7fELF\x02\x01\x01"}


def core(bits: int, segments: dict[int, bytes]) -> bytes:
    """A core file with a note, then segments with these bytes at these addresses."""
    header_size, segment_size = (52, 32) if bits == 32 else (64, 56)
    at = header_size + segment_size * (len(segments) + 1)
    table, body = b"", b""
    for kind, address, data in [(4, 0, b"note"), *((1, a, d) for a, d in segments.items())]:
        if bits == 32:
            table += struct.pack(
                "=8I", kind, at + len(body), address, 0, len(data), len(data), 7, 1
            )
        else:
            table += struct.pack(
                "=2I6Q", kind, 7, at + len(body), address, 0, len(data), len(data), 1
            )
        body += data
    layout = "=16sHHIIIIIHHHHHH" if bits == 32 else "=16sHHIQQQIHHHHHH"
    count = len(segments) + 1
    header = struct.pack(
        layout,
        IDENT[bits],
        4,
        0,
        1,
        0,
        header_size,
        0,
        0,
        header_size,
        segment_size,
        count,
        0,
        0,
        0,
    )
    return header + table + body


@pytest.mark.parametrize(("bits", "base"), [(32, 0xC1000000), (64, 0xFFFFFFFF81000000)])
def test_read(bits: int, base: int, tmp_path: Path) -> None:
    file = tmp_path / "kcore"
    file.write_bytes(core(bits, {base: b"function", base + 0x1000: b"another one"}))
    kcore = Kcore(file)
    assert kcore.read(base, 4) == b"func"
    assert kcore.read(base + 4, 100) == b"tion"
    assert kcore.read(base + 0x1000, 7) == b"another"
    assert kcore.read(base + 8, 1) is None
    assert kcore.read(0, 4) is None
    assert not kcore.reason
    kcore.close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no such file at all" * 10])
def test_not_a_core_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "kcore"
    file.write_bytes(content)
    kcore = Kcore(file)
    assert kcore.read(0x1000, 4) is None
    assert str(file) in kcore.reason
    kcore.close()


def test_absent_file(tmp_path: Path) -> None:
    kcore = Kcore(tmp_path / "absent")
    # The file is opened at the first read: some probes need no code.
    assert not kcore.reason
    assert kcore.read(0x1000, 4) is None
    assert "absent" in kcore.reason
