# SPDX-License-Identifier: Apache-2.0
"""The architecture adapters."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchprobe import arch
from batchprobe.arch import Arch
from batchprobe.arch.x86 import NOPS
from batchprobe.arch.x86_64 import ENDBRS
from batchprobe.errors import UnsupportedError

ALL = [arch.adapter(file) for file in arch.ADAPTERS if file != "ia64"]
X86_64, I386, ARM64, PPC64LE, S390X, RISCV64 = (
    arch.adapter(file) for file in ("x86_64", "i386", "arm64", "ppc64le", "s390x", "riscv64")
)
ENDBR = ENDBRS[0]
NOP = NOPS[0]
CALL = b"\xe8\x12\x34\x56\x78"
RET = b"\xc3"


def words(*numbers: int) -> bytes:
    """Encode four-byte little-endian instructions."""
    return b"".join(number.to_bytes(4, "little") for number in numbers)


# Instructions that do not branch backwards, to fill function bodies with.
FILLERS = {
    "x86_64": st.sampled_from([0x90, 0x55, 0x5D, 0xC3, 0xCC]).map(lambda byte: bytes([byte])),
    "i386": st.sampled_from([0x90, 0x55, 0x5D, 0xC3, 0xCC]).map(lambda byte: bytes([byte])),
    "arm64": st.sampled_from([0xD503201F, 0xD65F03C0, 0xAA0003E1]).map(words),
    "ppc64le": st.sampled_from([0x60000000, 0x4E800020, 0x38600000]).map(words),
    "s390x": st.sampled_from([b"\x07\x07", b"\x18\x23", b"\xa7\x29\0\0"]),
    "riscv64": st.sampled_from([b"\x01\0", b"\x82\x80", b"\x13\x05\0\0"]),
}

# Adapter, the start of a function, and the offset after its patch site.
FUNCTION_STARTS = [
    *((X86_64, site, 5) for site in (*NOPS, CALL)),
    *((X86_64, endbr + site, 9) for endbr in ENDBRS for site in (*NOPS, CALL)),
    *((I386, site, 5) for site in (*NOPS, CALL)),
    (ARM64, words(0xD503201F, 0xD503201F), 8),
    (ARM64, words(0xAA1E03E9, 0xD503201F), 8),  # mov x9, x30: traced once
    (ARM64, words(0xAA1E03E9, 0x97FFFFF0), 8),  # bl: traced
    (ARM64, words(0xD503245F, 0xD503201F, 0xD503201F), 12),  # bti c
    (ARM64, words(0xD503233F, 0xAA1E03E9, 0xD503201F), 12),  # paciasp
    (PPC64LE, words(0x3C4C0123, 0x38424567, 0x7C0802A6, 0x60000000), 16),
    (PPC64LE, words(0x3C4C0123, 0x38424567, 0x7C0802A6, 0x4BFFFFF1), 16),  # bl
    (PPC64LE, words(0x7C0802A6, 0x60000000), 8),
    (S390X, bytes.fromhex("c00400000000"), 6),
    (S390X, bytes.fromhex("c00500001234"), 6),  # brasl: traced
    (RISCV64, words(0x13, 0x13), 8),
    (RISCV64, bytes.fromhex("0100010001000100"), 8),
    (RISCV64, words(0x00ABC297, 0x123282E7), 8),  # auipc t0; jalr t0: traced
]

# Jumps by adapter: the size, and a function that encodes the distance to jump.
JUMPS = {
    "x86_64": [
        (2, lambda to: b"\xeb" + struct.pack("<b", to - 2)),
        (2, lambda to: b"\x7f" + struct.pack("<b", to - 2)),
        (5, lambda to: b"\xe9" + struct.pack("<i", to - 5)),
        (6, lambda to: b"\x0f\x85" + struct.pack("<i", to - 6)),
    ],
    "arm64": [
        (4, lambda to: words(0x14000000 | to // 4 & 0x3FFFFFF)),  # b
        (4, lambda to: words(0x54000001 | (to // 4 & 0x7FFFF) << 5)),  # b.ne
        (4, lambda to: words(0xB5000003 | (to // 4 & 0x7FFFF) << 5)),  # cbnz x3
        (4, lambda to: words(0x36000000 | (to // 4 & 0x3FFF) << 5)),  # tbz w0, #0
    ],
    "ppc64le": [
        (4, lambda to: words(0x48000000 | to & 0x3FFFFFC)),  # b
        (4, lambda to: words(0x40820000 | to & 0xFFFC)),  # bne
        (4, lambda to: words(0x42000000 | to & 0xFFFC)),  # bdnz
    ],
    "s390x": [
        (4, lambda to: b"\xa7\x74" + struct.pack(">h", to // 2)),  # jne
        (4, lambda to: b"\xa7\x27" + struct.pack(">h", to // 2)),  # brctg
        (6, lambda to: b"\xc0\xf4" + struct.pack(">i", to // 2)),  # jg
        (6, lambda to: b"\xec\x23" + struct.pack(">h", to // 2) + b"\xa0\x64"),  # cgrj
    ],
    "riscv64": [
        (4, lambda to: words(0x6F | jal(to))),  # j
        (4, lambda to: words(0x00B51063 | branch(to))),  # bne a0, a1
        (2, lambda to: (0xA001 | short_jump(to)).to_bytes(2, "little")),  # c.j
        (2, lambda to: (0xE101 | short_branch(to)).to_bytes(2, "little")),  # c.bnez a0
    ],
}
JUMPS["i386"] = JUMPS["x86_64"]
# The farthest a jump of this size reaches back, in bytes.
REACH = {("x86_64", 2): 128, ("i386", 2): 128, ("riscv64", 2): 256}


def bits(value: int, high: int, low: int) -> int:
    return value >> low & ((1 << (high - low + 1)) - 1)


# See the figures of immediates in the RISC-V instruction set manual.
def jal(to: int) -> int:
    parts = (bits(to, 20, 20) << 31, bits(to, 10, 1) << 21, bits(to, 11, 11) << 20)
    return sum(parts) | bits(to, 19, 12) << 12


def branch(to: int) -> int:
    parts = (bits(to, 12, 12) << 31, bits(to, 10, 5) << 25, bits(to, 4, 1) << 8)
    return sum(parts) | bits(to, 11, 11) << 7


def short_jump(to: int) -> int:
    parts = ((11, 11, 12), (4, 4, 11), (9, 8, 9), (10, 10, 8), (6, 6, 7), (7, 7, 6), (3, 1, 3))
    return sum(bits(to, high, low) << at for high, low, at in (*parts, (5, 5, 2)))


def short_branch(to: int) -> int:
    parts = ((8, 8, 12), (4, 3, 10), (7, 6, 5), (2, 1, 3), (5, 5, 2))
    return sum(bits(to, high, low) << at for high, low, at in parts)


def test_machines_find_their_adapter() -> None:
    assert arch.for_machine("x86_64") is X86_64
    assert {arch.for_machine(name) for name in ("i386", "i586", "i686")} == {I386}
    assert arch.for_machine("aarch64") is ARM64
    with pytest.raises(UnsupportedError, match=r"'vax'.*x86_64.*riscv64"):
        arch.for_machine("vax")


def test_ia64_is_refused_with_its_reason() -> None:
    with pytest.raises(UnsupportedError, match=r"CONFIG_KPROBE_EVENTS.*6\.7") as refusal:
        arch.for_machine("ia64")
    assert "kernel module" in refusal.value.remedy


@pytest.fixture
def report_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that makes uname(2) report another machine."""
    own = os.uname()

    def report(machine: str) -> None:
        other = type(own)((own.sysname, own.nodename, own.release, own.version, machine))
        monkeypatch.setattr("os.uname", lambda: other)
        arch.current.cache_clear()

    yield report
    monkeypatch.undo()
    arch.current.cache_clear()


@pytest.mark.parametrize("machine", ["i686", "armv7l"])
def test_a_python_of_another_word_size_is_refused(
    machine: str, report_machine: Callable[[str], None]
) -> None:
    """Under setarch(8) a 64-bit kernel reports a 32-bit machine."""
    report_machine(machine)
    with pytest.raises(UnsupportedError, match=rf"{machine}.*setarch"):
        arch.current()


@pytest.mark.parametrize("adapter", ALL, ids=lambda a: a.name)
def test_each_adapter_is_complete(adapter: Arch) -> None:
    size = adapter.bits // 8
    registers, syscalls = adapter.registers, adapter.syscalls
    offsets = {registers.instruction_pointer, *registers.arguments}
    assert len(offsets) == len(registers.arguments) + 1
    assert all(offset % size == 0 for offset in (*offsets, registers.result))
    assert len({syscalls.bpf, syscalls.membarrier, syscalls.perf_event_open}) == 3
    assert set(adapter.abi_order) <= {"multi", "event", "perf"}
    assert adapter.syscall_prefixes


@pytest.mark.parametrize(("adapter", "start", "after"), FUNCTION_STARTS)
def test_after_patch_site(adapter: Arch, start: bytes, after: int) -> None:
    # BCR 0, because zeros are not an instruction on s390x; other adapters ignore it.
    assert adapter.after_patch_site(start + 4 * b"\x07\x07") == after
    # Only s390x inspects the instruction a breakpoint would replace.
    assert adapter.after_patch_site(start) == (None if adapter is S390X else after)


@pytest.mark.parametrize("adapter", ALL, ids=lambda a: a.name)
@pytest.mark.parametrize("code", [b"", b"\x55", bytes(3), b"\x55\x48\x89\xe5\x53", bytes(64)])
def test_without_a_patch_site(adapter: Arch, code: bytes) -> None:
    assert adapter.after_patch_site(code) is None


@pytest.mark.parametrize("code", [NOP[:4], ENDBR, ENDBR + NOP[:4], RET * 16])
def test_with_a_truncated_patch_site(code: bytes) -> None:
    assert X86_64.after_patch_site(code) is None


@pytest.mark.parametrize("adapter", [X86_64, I386], ids=lambda a: a.name)
# From functions of Debian's 6.1, which refuses probes after their patch sites:
# hugetlb_vm_op_fault() (BUG), hugetlb_cgroup_uncharge_counter() (jump label).
@pytest.mark.parametrize("code", ["0f0b660f1f84", "66905348", "0f1f440000c3"])
def test_no_probe_on_reserved_instructions(adapter: Arch, code: str) -> None:
    assert adapter.after_patch_site(NOP + bytes.fromhex(code)) is None


@pytest.mark.parametrize("adapter", [X86_64, I386], ids=lambda a: a.name)
@pytest.mark.parametrize(
    ("code", "may"),
    [("e816e61f00", True), ("e9c8e81f00", True), ("eb08", True), ("4155", False), ("", False)],
)
def test_may_patch_reports_jumps_and_calls(adapter: Arch, code: str, may: bool) -> None:
    function = NOP + bytes.fromhex(code)
    assert adapter.after_patch_site(function) == len(NOP)
    assert adapter.may_patch(function, len(NOP)) is may


@pytest.mark.parametrize(("adapter", "start", "after"), FUNCTION_STARTS)
@settings(max_examples=25)
@given(data=st.data())
def test_no_probe_where_a_loop_starts(
    adapter: Arch, start: bytes, after: int, data: st.DataObject
) -> None:
    """Each iteration would count as a call."""
    filler = st.lists(FILLERS[adapter.name], max_size=60).map(b"".join)
    # The instruction a breakpoint would replace is not a jump.
    body = data.draw(FILLERS[adapter.name]) + data.draw(filler)
    tail = data.draw(filler)
    assert adapter.after_patch_site(start + body + tail) == after
    size, jump = data.draw(st.sampled_from(JUMPS[adapter.name]))
    reach = REACH.get((adapter.name, size), 1 << 14)
    back = len(body)
    if back + size > reach:
        return
    assert adapter.after_patch_site(start + body + jump(-back) + tail) is None
    # A jump to the next instruction does no harm.
    if back:
        step = 1 if adapter in (X86_64, I386) else 4
        further = start + body + jump(step - back) + tail
        assert adapter.after_patch_site(further) == after


@pytest.mark.parametrize(
    ("code", "after"),
    [
        # dput() of Debian 12: cgij %r2,0,8,.+330.
        ("c00400319cd8 ec2800a5007c eb7ff0500024 b90400ef", None),
        # sched_getscheduler() of Debian 13: lt %r1,156(%r2), then jl.
        ("c0040053a5d0 e310209c0012 a7440046 ebbff0700024", None),
        ("c00400000000 1222 07fe", None),  # ltr %r2,%r2
        ("c00400000000 07fe", None),  # br %r14
        ("c00400000000 a7f40010", None),  # j
        ("c00400476070 eb6ff0480024 b90400ef e3f0ff88ff71", 6),  # stmg
        ("c00400000000 c01000001234", 6),  # larl
        ("c00400000000 e54c20000000", 6),  # mvhi
        ("c0040053a5d0 0002f0700024 b90400ef", 6),  # another tool's breakpoint
        ("c00400000000", None),
    ],
)
def test_s390x_probes_only_instructions_safe_to_single_step(code: str, after: int | None) -> None:
    assert S390X.after_patch_site(bytes.fromhex(code)) == after


@pytest.mark.parametrize("adapter", ALL, ids=lambda a: a.name)
def test_no_two_probes_share_an_instruction_pointer(adapter: Arch) -> None:
    address = 0xC1000000
    entry = adapter.hit_ips(address, 0)
    assert len(set(entry)) == len(entry) <= adapter.max_ips
    inside = [adapter.hit_ips(address, offset) for offset in (16, 20, 28)]
    assert len({ip for ips in inside for ip in ips}) == 3
    assert not set(entry) & {ip for ips in inside for ip in ips}
    assert address in adapter.return_probe_ips(address, 0)
    assert adapter.return_probe_ips(address, 8) == (address + 8,)


def test_hit_ips() -> None:
    """Observed on real kernels: docs/architectures.md."""
    assert X86_64.hit_ips(0x1000, 0) == (0x1001, 0x1005)
    assert X86_64.hit_ips(0x1000, 9) == (0x100A,)
    assert S390X.hit_ips(0x1000, 6) == (0x1008,)
    assert ARM64.hit_ips(0x1000, 8) == RISCV64.hit_ips(0x1000, 8) == (0x1008,)
    assert PPC64LE.hit_ips(0x1000, 12) == (0x100C,)


@pytest.mark.parametrize(
    ("code", "entry"),
    [
        (words(0x3C4C0123, 0x38424567, 0x7C0802A6, 0x60000000), 12),  # global entry, patch site
        (words(0x3C4C0123, 0x38424567, 0x38600000, 0x4E800020), 8),  # global entry, notrace
        (words(0x3C400123, 0x38424567, 0x7C0802A6, 0x60000000), 12),
        (words(0x7C0802A6, 0x60000000, 0x38600000), 4),  # one entry
        (words(0x38600000, 0x4E800020), 0),
        (None, 8),
    ],
)
def test_ppc64le_entry_is_passed_by_every_call(code: bytes | None, entry: int) -> None:
    assert PPC64LE.entry(code) == entry


@pytest.mark.parametrize(
    ("file", "variant"),
    [
        ("x86_64", "le64"),
        ("ppc64le", "le64"),
        ("arm64", "le64-atomic"),
        ("riscv64", "le64-atomic"),
        ("i386", "le32"),
        ("arm", "le32"),
        ("s390x", "be64"),
    ],
)
def test_bytecode_variant(file: str, variant: str) -> None:
    assert arch.adapter(file).bytecode == variant


def test_byteorder() -> None:
    assert {adapter.name for adapter in ALL if adapter.byteorder == "big"} == {"s390x"}
    assert arch.current().byteorder == sys.byteorder
