# SPDX-License-Identifier: Apache-2.0
"""Record types of the running kernel and of ext4, reduced to what the tests need.

Usage, in a virtual machine with ext4 loaded: python3 record_btf.py DIRECTORY [BTF_DIRECTORY]

BTF_DIRECTORY has the files `vmlinux` and `ext4`; it is /sys/kernel/btf unless given. A struct that
is not selected stays whole where another one embeds it; where it is only pointed to, it becomes a
declaration, as in C. Prototypes behind pointers lose their parameters.
"""

import struct
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

FUNCTIONS = {
    "vfs_read", "vfs_write", "tcp_sendmsg", "do_sys_openat2", "__alloc_skb", "kmem_cache_alloc",
    "wake_up_process", "ip_queue_xmit", "kfree_skb_reason", "_printk", "schedule", "sort",
    "pfn_pte", "quota_send_warning", "type_show", "__x64_sys_capset", "bpf_jit_free",
    "cpu_startup_entry", "umount_tree", "crc32_body",
}  # fmt: skip
MODULE_FUNCTIONS = {"ext4_file_write_iter", "ext4_sync_file", "ext4_free_inodes_count"}
STRUCTS = {
    "file", "path", "dentry", "qstr", "sock", "sock_common", "sk_buff", "msghdr", "iov_iter",
    "open_how", "kiocb", "ext4_group_desc",
}  # fmt: skip
# Of these the members that are named stay: whole, they would bring in 1,000 others.
PARTS = {
    "task_struct": {"comm", "pid", "real_parent", "sched_contributes_to_load", "__state"},
    "inode": {"i_mode", "i_ino", "i_sb", "i_uid"},
    "super_block": {"s_type", "s_id"},
    "file_system_type": {"name"},
    "net_device": {"name", "ifindex", "dev_addr"},
}

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, PROTO, VAR,
 SECTION, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)  # fmt: skip
FIXED = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
EACH = {STRUCT: 3, UNION: 3, ENUM: 2, PROTO: 2, SECTION: 3, ENUM64: 3}
MARKS = {TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG}
REFERS = {PTR, FUNC, PROTO, *MARKS}


class Btf:
    """A BTF as lists of words, with names instead of their offsets."""

    def __init__(self, data: bytes, base: "Btf | None" = None) -> None:
        _, _, _, header, types, size, names, names_size = struct.unpack_from("<HBBIIIII", data)
        self.text: bytes = (base.text if base else b"") + data[header + names :][:names_size]
        self.types: list[list[int]] = list(base.types) if base else [[0, 0, 0]]
        self.first = len(self.types)
        words = struct.unpack_from(f"<{size // 4}I", data, header + types)
        at = 0
        while at < len(words):
            kind, count = kind_and_count(words[at + 1])
            end = at + 3 + FIXED.get(kind, 0) + EACH.get(kind, 0) * count
            self.types.append(list(words[at:end]))
            at = end

    def name(self, at: int) -> str:
        return self.text[at : self.text.index(0, at)].decode()


def kind_and_count(info: int) -> tuple[int, int]:
    return info >> 24 & 0x1F, info & 0xFFFF


def references(one: list[int]) -> Iterator[int]:
    """Yield the places in a type that have the number of another."""
    kind, count = kind_and_count(one[1])
    if kind in REFERS:
        yield 2
    if kind == ARRAY:
        yield from (3, 4)
    if kind in (STRUCT, UNION):
        yield from range(4, 4 + 3 * count, 3)
    if kind == PROTO:
        yield from range(4, 4 + 2 * count, 2)


def name_places(one: list[int]) -> Iterator[int]:
    kind, count = kind_and_count(one[1])
    yield 0
    if kind in EACH:
        yield from range(3, 3 + EACH[kind] * count, EACH[kind])


class Reduced:
    """Selected types of a module and of the kernel, and what they need."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        # Whether a type stays whole: one that is only pointed to need not.
        self.whole: dict[int, bool] = {}
        for number, one in enumerate(btf.types):
            kind, _ = kind_and_count(one[1])
            name = btf.name(one[0])
            functions = FUNCTIONS if number < btf.first else MODULE_FUNCTIONS
            is_struct = kind == STRUCT and (name in STRUCTS or name in PARTS)
            if is_struct or (kind == FUNC and name in functions):
                self.keep(number, whole=True)

    def keep(self, number: int, *, whole: bool) -> None:
        """Keep a type and what it refers to."""
        if not number or (number in self.whole and self.whole[number] >= whole):
            return
        self.whole[number] = whole
        one = self.form(number)
        kind, _ = kind_and_count(one[1])
        for place in references(one):
            # What only names or marks a type passes on how that one is needed.
            self.keep(one[place], whole=kind != PTR and (whole or kind not in MARKS))

    def form(self, number: int) -> list[int]:
        """The type as it is kept."""
        one = self.btf.types[number]
        kind, _ = kind_and_count(one[1])
        name = self.btf.name(one[0])
        if kind == STRUCT and name in PARTS:
            members = [one[at : at + 3] for at in range(3, len(one), 3)]
            kept = [of for of in members if self.btf.name(of[0]) in PARTS[name]]
            return [one[0], one[1] & ~0xFFFF | len(kept), one[2], *chain.from_iterable(kept)]
        if self.whole[number] or name in STRUCTS or not (name or kind == PROTO):
            return one
        if kind in (STRUCT, UNION):
            return [one[0], FWD << 24 | (kind == UNION) << 31, 0]
        return [0, PROTO << 24, 0] if kind == PROTO else one

    def write(self, directory: Path) -> None:
        """Write the kernel's types and those of the module, numbered anew."""
        numbers = {old: new for new, old in enumerate([0, *sorted(self.whole)])}
        names = b"\0"
        for file, is_module in (("vmlinux", False), ("ext4", True)):
            inherited = len(names)
            words: list[int] = []
            for old in sorted(self.whole):
                if (old >= self.btf.first) != is_module:
                    continue
                one = list(self.form(old))
                for place in references(one):
                    one[place] = numbers[one[place]]
                for place in name_places(one):
                    text = b"\0%b\0" % self.btf.name(one[place]).encode()
                    if (at := names.find(text)) < 0 and len(text) > 2:
                        at = len(names) - 1
                        names += text[1:]
                    one[place] = at + 1 if len(text) > 2 else 0
                words += one
            own = names[inherited if is_module else 0 :]
            sizes = (4 * len(words), 4 * len(words), len(own))
            header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, *sizes)
            (directory / file).write_bytes(header + struct.pack(f"<{len(words)}I", *words) + own)


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(exist_ok=True)
    source = Path(sys.argv[2] if len(sys.argv) > 2 else "/sys/kernel/btf")
    kernel = Btf((source / "vmlinux").read_bytes())
    Reduced(Btf((source / "ext4").read_bytes(), kernel)).write(directory)


if __name__ == "__main__":
    main()
