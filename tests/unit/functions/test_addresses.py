# SPDX-License-Identifier: Apache-2.0
"""Addresses on a stack have the names of the functions that they are in."""

from __future__ import annotations

import pytest
from recorded import table

from batchprobe.functions.addresses import KernelAddresses
from batchprobe.functions.table import FunctionTable

KALLSYMS = b"""\
ffffffff81000000 T _stext
ffffffff81000100 T vfs_read
ffffffff81000180 t rw_verify_area
ffffffff810001c0 T panic
ffffffff81000200 T vfs_write
ffffffffa0000000 t ext4_file_open\t[ext4]
ffffffffa0000040 t ext4_release_file\t[ext4]
"""


@pytest.fixture
def addresses() -> KernelAddresses:
    return KernelAddresses(FunctionTable.from_text(KALLSYMS))


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        (0xFFFF_FFFF_8100_0100, "vfs_read+0x0"),
        (0xFFFF_FFFF_8100_011C, "vfs_read+0x1c"),
        (0xFFFF_FFFF_8100_017F, "vfs_read+0x7f"),
        (0xFFFF_FFFF_8100_0180, "rw_verify_area+0x0"),
        (0xFFFF_FFFF_A000_0020, "ext4_file_open+0x20 [ext4]"),
        (0x7F00_0000_0000, ""),
        (0, ""),
    ],
)
def test_where_a_probe_stands(addresses: KernelAddresses, ip: int, name: str) -> None:
    assert addresses.name(ip, is_return=False) == name


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        (0xFFFF_FFFF_8100_011C, "vfs_read+0x1c"),
        # panic() does not return, so that nothing follows the call at the end of rw_verify_area().
        (0xFFFF_FFFF_8100_01C0, "rw_verify_area+0x40"),
        (0xFFFF_FFFF_8100_01C1, "panic+0x1"),
        (0xFFFF_FFFF_A000_0040, "ext4_file_open+0x40 [ext4]"),
    ],
)
def test_where_a_call_returns_to(addresses: KernelAddresses, ip: int, name: str) -> None:
    assert addresses.name(ip, is_return=True) == name


def test_both_names_of_one_address(addresses: KernelAddresses) -> None:
    ip = 0xFFFF_FFFF_8100_0180
    for _ in range(2):
        assert addresses.name(ip, is_return=False) == "rw_verify_area+0x0"
        assert addresses.name(ip, is_return=True) == "vfs_read+0x80"


def test_each_address_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = FunctionTable.from_text(KALLSYMS)
    looked_up: list[int] = []
    found = symbols.function_at

    def function_at(address: int) -> object:
        looked_up.append(address)
        return found(address)

    monkeypatch.setattr(symbols, "function_at", function_at)
    addresses = KernelAddresses(symbols)
    for _ in range(3):
        assert addresses.name(0xFFFF_FFFF_8100_0104, is_return=True) == "vfs_read+0x4"
        assert addresses.name(1, is_return=False) == ""
    assert looked_up == [0xFFFF_FFFF_8100_0103, 1]


def test_a_recorded_kernel() -> None:
    symbols = table("debian-12")
    addresses = KernelAddresses(symbols)
    (read,) = symbols.named("vfs_read")
    assert addresses.name(read.address, is_return=False) == "vfs_read+0x0"
    assert addresses.name(read.address + 9, is_return=True) == "vfs_read+0x9"
    assert not addresses.name(read.address, is_return=True).startswith("vfs_read")
