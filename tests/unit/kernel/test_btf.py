# SPDX-License-Identifier: Apache-2.0
"""The types of the kernel that runs the tests, where it has some and libbpf is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchprobe.errors import UnsupportedError
from batchprobe.kernel.btf import KernelBtf, kernel_btf, open_btf
from batchprobe.kernel.btf_types import BtfTypes, Kind

FOLDER = Path("/sys/kernel/btf")


@pytest.fixture
def btf() -> Iterator[KernelBtf]:
    try:
        with kernel_btf() as found:
            yield found
    except UnsupportedError as error:
        pytest.skip(str(error))


def test_the_bytes_are_those_of_the_kernel(btf: KernelBtf) -> None:
    assert btf.raw() == (FOLDER / "vmlinux").read_bytes()


def test_modules(btf: KernelBtf) -> None:
    for file in sorted(file for file in FOLDER.iterdir() if file.name != "vmlinux")[:3]:
        assert btf.raw(file.name) == file.read_bytes()
    with pytest.raises(UnsupportedError, match="the module no_such_module has no BTF"):
        btf.raw("no_such_module")


def test_both_ways_to_a_member_agree(btf: KernelBtf) -> None:
    types = BtfTypes.read(btf.raw())
    [number] = types.named("task_struct", {Kind.STRUCT})
    members = [one for one in types.members(types[number]) if one.name and not one.bits]
    assert len(members) > 50
    for one in members:
        assert btf.offset("task_struct", one.name) == one.offset // 8


def test_closing_twice_frees_once(btf: KernelBtf) -> None:
    other = open_btf()
    other.close()
    other.close()
    del other
    assert btf.offset("task_struct", "pid") > 0
