# SPDX-License-Identifier: Apache-2.0
"""Code shared by i386 and x86_64: patch sites, breakpoints, jumps."""

from __future__ import annotations

__all__ = ["BREAKPOINT_SIZE", "NOPS", "end_of_patch_site", "may_patch"]

_PATCH_SITE_SIZE = 5
# An untraced patch site: the P6 nop, the K8 nop (5.10 on some CPUs), or the generic nop.
NOPS = (b"\x0f\x1f\x44\x00\x00", b"\x66\x66\x66\x66\x90", b"\x3e\x8d\x74\x26\x00")
_CALL = 0xE8
# Instructions the kernel refuses to probe: the nop of a jump label, which has five bytes, or since
# 5.14 two (jump_label_text_reserved(), kernel/jump_label.c), and the ud2 of BUG() (find_bug(),
# lib/bug.c).
_RESERVED = (b"\x66\x90", b"\x0f\x1f\x44\x00\x00", b"\x0f\x0b")
# Jumps, which may belong to an enabled jump label, and calls, which may be static calls. Most are
# neither.
_BRANCHES = (b"\xeb", b"\xe9", b"\xe8")
# In a probe handler the instruction pointer is past the one-byte breakpoint. ftrace-based and
# jump-optimized kprobes imitate that (arch/x86/kernel/kprobes/{ftrace,opt}.c).
BREAKPOINT_SIZE = 1
# The displacement of a short jump to `target`, by the distance of its opcode from `target`.
_BACK = bytes(-(distance + 2) & 0xFF for distance in range(127))


def _is_patch_site(site: bytes) -> bool:
    """Report whether ftrace may patch these bytes, or has already done so."""
    return len(site) == _PATCH_SITE_SIZE and (site in NOPS or site[0] == _CALL)


def may_patch(code: bytes, at: int) -> bool:
    """Guess whether the kernel patches the instruction at offset `at`, and refuses to probe it."""
    return code.startswith(_BRANCHES, at)


def end_of_patch_site(code: bytes, start: int) -> int | None:
    """Return the offset after the patch site at offset `start`.

    None if there is no patch site, or if a probe after it would be refused or hit by a loop.
    """
    after = start + _PATCH_SITE_SIZE
    is_usable = (
        _is_patch_site(code[start:after])
        and not code.startswith(_RESERVED, after)
        and not _may_jump_to(code, after)
    )
    return after if is_usable else None


def _may_jump_to(code: bytes, target: int) -> bool:
    """Report whether any bytes of `code` may be a direct jump back to `target`: see `jumps`."""
    # Short jumps (eb, 70..7f) reach back 128 bytes. XOR compares each byte in reach with the
    # displacement that leads to `target` from there, all at once: a list may name 40,000 functions.
    window = code[target + 1 : target + 1 + len(_BACK)]
    difference = int.from_bytes(window, "big") ^ int.from_bytes(_BACK[: len(window)], "big")
    differences = difference.to_bytes(len(window), "big")
    match = differences.find(0)
    while match != -1:
        opcode = code[target + match]
        if opcode == 0xEB or 0x70 <= opcode <= 0x7F:
            return True
        match = differences.find(0, match + 1)
    # Near jumps (e9, 0f 80..8f) back within a function, which is shorter than 64 KiB, have a
    # displacement that ends in ff ff.
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
