"""The architecture adapters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchprobe import UnsupportedError, arch
from batchprobe.arch.x86_64 import ENDBRS, NOPS, X86_64

ENDBR = ENDBRS[0]
NOP = NOPS[0]
CALL = b"\xe8\x12\x34\x56\x78"
RET = b"\xc3"
# One byte each, and none that could begin a jump.
PLAIN = st.lists(st.sampled_from([0x90, 0x55, 0x5D, 0xC3, 0xCC]), max_size=120).map(bytes)


def test_machines_find_their_adapter() -> None:
    assert arch.for_machine("x86_64") is X86_64
    with pytest.raises(UnsupportedError, match=r"'vax'.*x86_64"):
        arch.for_machine("vax")


@pytest.mark.parametrize("site", [*NOPS, CALL])
@pytest.mark.parametrize("endbr", ENDBRS)
def test_behind_the_patch_site(site: bytes, endbr: bytes) -> None:
    assert X86_64.after_patch_site(site + RET) == 5
    assert X86_64.after_patch_site(endbr + site + RET) == 9


@pytest.mark.parametrize(
    "code",
    [b"", b"\x55", NOP[:4], ENDBR, ENDBR + NOP[:4], b"\x55\x48\x89\xe5\x53", RET * 16],
)
def test_without_a_patch_site(code: bytes) -> None:
    assert X86_64.after_patch_site(code) is None


@given(endbr=st.sampled_from([b"", *ENDBRS]), body=PLAIN, tail=PLAIN)
def test_a_loop_to_the_spot_forbids_it(endbr: bytes, body: bytes, tail: bytes) -> None:
    """A turn of the loop would be counted as a call."""
    start = endbr + NOP
    at = len(start) + len(body)
    assert X86_64.after_patch_site(start + body + tail) == len(start)
    jumps = {
        b"\xeb": 1,
        b"\x7f": 1,
        b"\xe9": 4,
        b"\x0f\x85": 4,
    }
    for opcode, size in jumps.items():
        back = len(start) - (at + len(opcode) + size)
        if back < -(1 << (8 * size - 1)):
            continue
        jump = opcode + back.to_bytes(size, "little", signed=True)
        assert X86_64.after_patch_site(start + body + jump + tail) is None
        # One byte further it is another instruction's affair.
        other = opcode + (back + 1).to_bytes(size, "little", signed=True)
        assert X86_64.after_patch_site(start + body + other + tail) == len(start)


def test_no_two_probes_share_an_instruction_pointer() -> None:
    address = 0xFFFFFFFF81000000
    entry = X86_64.hit_ips(address, 0)
    assert set(entry) == {address + 1, address + 5}
    for offset in (5, 9, 0x1C):
        assert X86_64.hit_ips(address, offset) == (address + offset + 1,)
        assert not set(entry) & set(X86_64.hit_ips(address, offset))
    assert address in X86_64.entry_ips(address)
