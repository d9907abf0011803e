"""The kernel's code as /proc/kcore has it: an ELF file of the machine's own width."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from batchprobe.kernel.kcore import KernelText

IDENT = {32: b"\x7fELF\x01\x01\x01", 64: b"\x7fELF\x02\x01\x01"}


def core(bits: int, segments: dict[int, bytes]) -> bytes:
    """A core file with these bytes at these addresses, and a note before them."""
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
def test_bytes_at_addresses(bits: int, base: int, tmp_path: Path) -> None:
    file = tmp_path / "kcore"
    file.write_bytes(core(bits, {base: b"function", base + 0x1000: b"another one"}))
    text = KernelText(file)
    assert text.read(base, 4) == b"func"
    assert text.read(base + 4, 100) == b"tion"
    assert text.read(base + 0x1000, 7) == b"another"
    assert text.read(base + 8, 1) is None
    assert text.read(0, 4) is None
    assert not text.reason
    text.close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no such file at all" * 10])
def test_what_is_no_core_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "kcore"
    file.write_bytes(content)
    text = KernelText(file)
    assert text.read(0x1000, 4) is None
    assert str(file) in text.reason
    text.close()


def test_no_file(tmp_path: Path) -> None:
    text = KernelText(tmp_path / "absent")
    # It is opened when code is asked for: a link needs none.
    assert not text.reason
    assert text.read(0x1000, 4) is None
    assert "absent" in text.reason
