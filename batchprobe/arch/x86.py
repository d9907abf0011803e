"""What i386 and x86_64 have in common: the patch site, the breakpoint, the jumps."""

from __future__ import annotations

__all__ = ["BREAKPOINT_SIZE", "NOPS", "behind_patch_site", "may_patch"]

_PATCH_SITE_SIZE = 5
# How an untraced patch site reads: the P6 nop, the K8 nop (5.10 on some CPUs), the generic one.
NOPS = (b"\x0f\x1f\x44\x00\x00", b"\x66\x66\x66\x66\x90", b"\x3e\x8d\x74\x26\x00")
_CALL = 0xE8
# What the kernel takes no probe on: the nop of a jump label, of two bytes since 5.14
# (jump_label_text_reserved(), kernel/jump_label.c), and the ud2 of a BUG() (find_bug(), lib/bug.c).
_RESERVED = (b"\x66\x90", b"\x0f\x1f\x44\x00\x00", b"\x0f\x0b")
# A jump, of a jump label that is on, and a call, of a static call; mostly they are neither.
_BRANCHES = (b"\xeb", b"\xe9", b"\xe8")
# The CPU has stepped over the one-byte breakpoint when the handler reads the instruction pointer;
# ftrace and the jump optimizer imitate that (arch/x86/kernel/kprobes/{ftrace,opt}.c).
BREAKPOINT_SIZE = 1
# The displacement of a short jump that begins so many bytes behind its target.
_BACK = bytes(-(behind + 2) & 0xFF for behind in range(127))


def _is_patch_site(site: bytes) -> bool:
    """Whether ftrace patches these bytes, or has patched them."""
    return len(site) == _PATCH_SITE_SIZE and (site in NOPS or site[0] == _CALL)


def may_patch(code: bytes, at: int) -> bool:
    """Whether the kernel may refuse one on this instruction."""
    return code.startswith(_BRANCHES, at)


def behind_patch_site(code: bytes, start: int) -> int | None:
    """Where the patch site that begins at `start` ends, if a probe is good there."""
    after = start + _PATCH_SITE_SIZE
    is_good = (
        _is_patch_site(code[start:after])
        and not code.startswith(_RESERVED, after)
        and not _may_jump_to(code, after)
    )
    return after if is_good else None


def _may_jump_to(code: bytes, target: int) -> bool:
    """Whether any bytes of `code` could be a direct jump back to offset `target`: see `jumps`."""
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
