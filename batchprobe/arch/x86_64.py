"""x86-64: ftrace-based entry probes, breakpoints (soon jump-optimized) behind the patch site."""

from __future__ import annotations

from batchprobe.arch.base import Arch, SyscallNumbers

__all__ = ["X86_64"]

# endbr64, and what the kernel seals it with where no pointer to the function is taken
# (gen_endbr_poison(), arch/x86/include/asm/ibt.h: 5.18, and since 6.15).
ENDBRS = (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6")
ENDBR_SIZE = 4
PATCH_SITE_SIZE = 5
# How an untraced patch site reads: the P6 nop, the K8 nop (5.10 on some CPUs), the generic one.
NOPS = (b"\x0f\x1f\x44\x00\x00", b"\x66\x66\x66\x66\x90", b"\x3e\x8d\x74\x26\x00")
CALL = 0xE8
# The displacement of a short jump that begins so many bytes behind its target.
_BACK = bytes(-(behind + 2) & 0xFF for behind in range(127))
# The CPU has stepped over the one-byte breakpoint when the handler reads the instruction pointer;
# ftrace and the jump optimizer imitate that (arch/x86/kernel/kprobes/{ftrace,opt}.c).
BREAKPOINT_SIZE = 1


class _X8664(Arch):
    __slots__ = ()

    name = "x86_64"
    machines = frozenset({"x86_64"})
    syscalls = SyscallNumbers(bpf=321, membarrier=324, perf_event_open=298)
    syscall_prefixes = ("__x64_sys_", "sys_")
    abi_order = ("multi", "event", "perf")
    entry_is_ftrace = True

    def after_patch_site(self, code: bytes) -> int | None:
        start = ENDBR_SIZE if code.startswith(ENDBRS) else 0
        site = code[start : start + PATCH_SITE_SIZE]
        if len(site) < PATCH_SITE_SIZE or not (site in NOPS or site[0] == CALL):
            return None
        offset = start + PATCH_SITE_SIZE
        return None if _may_jump_to(code, offset) else offset

    def hit_ips(self, address: int, offset: int) -> tuple[int, ...]:
        if offset:
            return (address + offset + BREAKPOINT_SIZE,)
        return tuple(ip + BREAKPOINT_SIZE for ip in self.entry_ips(address))

    def entry_ips(self, address: int) -> tuple[int, ...]:
        # The kernel moves an entry probe behind endbr64 (since 5.18).
        return (address, address + ENDBR_SIZE)


def _may_jump_to(code: bytes, target: int) -> bool:
    """Whether any bytes of `code` could be a direct jump to offset `target`.

    A loop that begins right behind the patch site would hit a probe there once a turn. Bytes that
    only look like a jump are taken for one: such a function is probed at its entry, which is right
    too.
    """
    # Short jumps (eb, 70..7f) reach 128 bytes back: each byte there is compared with what would
    # lead to `target` from its place. All in one step, for a list may have 40,000 functions.
    window = code[target + 1 : target + 1 + len(_BACK)]
    difference = int.from_bytes(window, "big") ^ int.from_bytes(_BACK[: len(window)], "big")
    places = difference.to_bytes(len(window), "big")
    place = places.find(0)
    while place != -1:
        op = code[target + place]
        if op == 0xEB or 0x70 <= op <= 0x7F:
            return True
        place = places.find(0, place + 1)
    # Near jumps (e9, 0f 80..8f) end in a displacement whose high half is ff ff: a function is
    # shorter than 64 KiB.
    end = code.find(b"\xff\xff", target)
    while end != -1:
        at = end - 2
        displacement = int.from_bytes(code[at : at + 4], "little", signed=True)
        before = code[max(at - 2, 0) : at]
        is_jump = before[-1:] == b"\xe9" or (
            len(before) == 2 and before[0] == 0x0F and 0x80 <= before[1] <= 0x8F
        )
        if is_jump and at + 4 + displacement == target:
            return True
        end = code.find(b"\xff\xff", end + 1)
    return False


X86_64 = _X8664()
