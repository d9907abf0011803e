# SPDX-License-Identifier: Apache-2.0
"""Paths to members: where the value is, and what is wrong with the others."""

from __future__ import annotations

import sys

import pytest
from btf import CHAR, LONG, NEEDS_LITTLE_ENDIAN, Btf, read_recorded
from hypothesis import given
from hypothesis import strategies as st

from batchprobe.functions.member_path import RESULT, Access, PathError
from batchprobe.functions.signatures import Signatures
from batchprobe.functions.value_types import ValueKind
from batchprobe.kernel.btf_types import Kind


def recorded_access(function: str, path: str, module: str | None = None) -> Access:
    signatures = Signatures(None, read_recorded)
    return signatures.access(signatures.of(function, module), path)


def access(path: str, btf: Btf, *parameters: tuple[str, int], result: int = 0) -> Access:
    """Where the value is for a function of these parameters."""
    btf.function("function", *parameters, result=result)
    signatures = Signatures(None, lambda _module: btf.raw)
    return signatures.access(signatures.of("function"), path)


# The offsets are those of Debian's 6.1 for x86_64.
@NEEDS_LITTLE_ENDIAN
@pytest.mark.parametrize(
    ("function", "path", "parameter", "steps", "name"),
    [
        ("vfs_read", "count", 2, (), "size_t"),
        ("vfs_read", "file", 0, (), "struct file *"),
        ("vfs_read", "pos[0]", 3, (0,), "loff_t"),
        ("vfs_read", "pos[2]", 3, (16,), "loff_t"),
        ("vfs_read", "file->f_inode->i_ino", 0, (32, 64), "unsigned long"),
        ("vfs_read", "file.f_path.dentry.d_name.name", 0, (24, 40), "const unsigned char *"),
        ("vfs_read", "file->f_inode->i_sb->s_type->name", 0, (32, 40, 40, 0), "const char *"),
        ("vfs_read", "file.f_path.dentry.d_iname[3]", 0, (24, 59), "unsigned char"),
        ("tcp_sendmsg", "sk->__sk_common.skc_dport", 0, (12,), "__be16"),
        ("tcp_sendmsg", "sk.sk_uid.val", 0, (560,), "uid_t"),
        ("tcp_sendmsg", "sk.sk_state_change", 0, (672,), "function *"),
        ("ip_queue_xmit", "skb->len", 1, (112,), "unsigned int"),
        ("ip_queue_xmit", " skb -> dev . ifindex ", 1, (16, 216), "int"),
        ("ip_queue_xmit", "skb->cb[0x10]", 1, (56,), "char"),
        ("__alloc_skb", "return", RESULT, (), "struct sk_buff *"),
        ("__alloc_skb", "return->len", RESULT, (112,), "unsigned int"),
    ],
)
def test_recorded_paths(
    function: str, path: str, parameter: int, steps: tuple[int, ...], name: str
) -> None:
    found = recorded_access(function, path)
    assert found[:2] == (parameter, steps)
    assert found.type.name == name
    assert (found.shift, found.bits, found.is_embedded) == (0, 8 * found.type.size, False)


@NEEDS_LITTLE_ENDIAN
def test_network_order_of_a_member() -> None:
    assert recorded_access("tcp_sendmsg", "sk.__sk_common.skc_dport").type.is_network_order
    assert not recorded_access("tcp_sendmsg", "sk.__sk_common.skc_num").type.is_network_order


@NEEDS_LITTLE_ENDIAN
def test_recorded_bit_fields() -> None:
    found = recorded_access("ip_queue_xmit", "skb->ip_summed")
    assert found[:2] == (1, (128,))
    assert (found.type.size, found.shift, found.bits) == (1, 5, 2)
    found = recorded_access("wake_up_process", "p->sched_contributes_to_load")
    assert (found.type.size, found.bits) == (4, 1)


@NEEDS_LITTLE_ENDIAN
def test_text_inside_a_struct() -> None:
    found = recorded_access("ip_queue_xmit", "skb->dev->name")
    assert (found.steps, found.is_embedded) == ((16, 0), True)
    assert (found.type.kind, found.type.size) == (ValueKind.STRING, 16)
    # These are unsigned char, no text.
    found = recorded_access("vfs_read", "file.f_path.dentry.d_iname")
    assert (found.type.kind, found.is_embedded) == (ValueKind.OTHER, False)


@NEEDS_LITTLE_ENDIAN
def test_module_functions_reach_types_of_the_kernel() -> None:
    found = recorded_access("ext4_file_write_iter", "iocb->ki_filp->f_inode.i_ino", "ext4")
    assert found.steps == (0, 32, 64)
    found = recorded_access("ext4_free_inodes_count", "bg.bg_checksum", "ext4")
    assert (found.steps, found.type.name) == ((30,), "__le16")


@NEEDS_LITTLE_ENDIAN
@pytest.mark.parametrize(
    ("function", "path", "message"),
    [
        ("vfs_read", "size", "no argument named size: it takes file, buf, count, pos"),
        ("schedule", "size", "no argument named size: it takes none"),
        ("schedule", "return", "the function returns nothing"),
        ("vfs_read", "count.x", "count is no pointer"),
        ("vfs_read", "buf.x", "buf is no pointer to a struct"),
        ("sort", "base->x", "base is no pointer to a struct"),
        ("sort", "base[0]", "base has elements of unknown size"),
        ("vfs_read", "count[0]", "count is neither an array nor a pointer"),
        ("vfs_read", "file.f_pth", "struct file has no member f_pth; did you mean f_path"),
        ("vfs_read", "file.zzzzzz", "struct file has no member zzzzzz$"),
        ("vfs_read", "file.f_path.x", "struct path has no member x$"),
        ("vfs_read", "file.f_inode.i_mode.x", "file.f_inode.i_mode is no pointer"),
        ("quota_send_warning", "qid.type", "qid is a struct in registers"),
        ("ip_queue_xmit", "skb->cb[48]", "skb.cb has 48 elements, from 0 to 47"),
        (
            "wake_up_process",
            "p.real_parent.real_parent.real_parent.real_parent.pid",
            "p.real_parent.real_parent.real_parent.real_parent.pid follows more than 4 pointers",
        ),
        ("kmem_cache_alloc", "s.size", "the members of struct kmem_cache are not known"),
        *(
            ("vfs_read", path, f"'{path}' is no path such as ")
            for path in (
                "",
                "file.",
                "file..f_path",
                "file->",
                "pos[",
                "pos[x]",
                "[0]",
                "2",
                "*pos",
            )
        ),
        ("vfs_read", "file f_path", "no argument named filef_path"),
    ],
)
def test_paths_that_mean_nothing(function: str, path: str, message: str) -> None:
    with pytest.raises(PathError) as caught:
        recorded_access(function, path)
    assert str(caught.value).startswith(message.removesuffix("$"))
    assert not message.endswith("$") or str(caught.value) == message[:-1]


def pointer(btf: Btf, to: int) -> int:
    return btf.add(Kind.POINTER, "", to)


def test_members_of_anonymous_structs_and_unions() -> None:
    btf = Btf()
    inner = btf.composite("", ("high", LONG, 64))
    union = btf.composite("", ("low", LONG, 0), ("", inner, 0), kind=Kind.UNION)
    volatile = btf.add(Kind.VOLATILE, "", union)
    outer = btf.composite("outer", ("first", LONG, 0), ("", volatile, 128))
    assert access("outer.high", btf, ("outer", pointer(btf, outer))).steps == (24,)


def test_the_path_goes_through_arrays_of_structs() -> None:
    btf = Btf()
    pair = btf.composite("pair", ("first", LONG, 0), ("second", LONG, 64), size=16)
    array = btf.add(Kind.ARRAY, "", 0, pair, LONG, 4)
    growing = btf.add(Kind.ARRAY, "", 0, pair, LONG, 0)
    outer = btf.composite("outer", ("fixed", array, 64), ("growing", growing, 640))
    argument = ("outer", pointer(btf, outer))
    assert access("outer[1].fixed[2].second", btf, argument).steps == (64 + 8 + 32 + 8,)
    assert access("outer->growing[9].first", btf, argument).steps == (80 + 144,)


def test_a_pointer_to_a_pointer() -> None:
    btf = Btf()
    one = btf.composite("one", ("value", LONG, 192))
    argument = ("list", pointer(btf, pointer(btf, one)))
    assert access("list[3].value", btf, argument).steps == (24, 24)
    with pytest.raises(PathError, match=r"^list is no pointer to a struct$"):
        access("list.value", btf, argument)


def test_a_declared_struct_is_looked_up_by_name() -> None:
    btf = Btf()
    declared = btf.add(Kind.FORWARD, "later", 0)
    btf.composite("later", ("other", LONG, 0), kind=Kind.UNION)
    btf.composite("later", ("value", LONG, 64))
    assert access("a.value", btf, ("a", pointer(btf, declared))).steps == (8,)


def test_a_struct_declared_in_a_module() -> None:
    base, read = Btf(), {}
    base.composite("of_the_kernel", ("value", LONG, 64))
    base.composite("twice", ("value", LONG, 64))
    module = Btf(base)
    arguments = [
        (name, pointer(module, module.add(Kind.FORWARD, name, 0)))
        for name in ("of_the_kernel", "twice")
    ]
    module.composite("twice", ("value", LONG, 128))
    module.function("function", *arguments)
    read = {None: base.raw, "module": module.raw}
    signatures = Signatures(None, lambda name: read[name])
    signature = signatures.of("function", "module")
    assert signatures.access(signature, "of_the_kernel.value").steps == (8,)
    assert signatures.access(signature, "twice.value").steps == (16,)


def test_a_declaration_that_may_be_of_several_structs() -> None:
    btf = Btf()
    declared = btf.add(Kind.FORWARD, "twice", 0)
    btf.composite("twice", ("value", LONG, 64))
    btf.composite("twice", ("value", LONG, 128))
    with pytest.raises(PathError, match=r"struct twice are not known: BTF has several"):
        access("a.value", btf, ("a", pointer(btf, declared)))


def test_text_counts_as_a_step() -> None:
    btf = Btf()
    text = btf.add(Kind.ARRAY, "", 0, CHAR, LONG, 16)
    number = btf.types + 2
    # A list: the pointer is to the struct that has it.
    to_node = pointer(btf, number)
    assert btf.composite("node", ("next", to_node, 0), ("name", text, 64)) == number
    found = access("a.next.next.next.name", btf, ("a", to_node))
    assert (found.steps, found.is_embedded) == ((0, 0, 0, 8), True)
    with pytest.raises(PathError, match="more than 4 pointers"):
        access("a.next.next.next.next.name", btf, ("a", to_node))


@given(
    size=st.sampled_from([1, 2, 4, 8]),
    begin=st.integers(0, 200),
    bits=st.integers(1, 64),
    before=st.integers(0, 3),
    data=st.data(),
)
def test_a_bit_field_is_found_in_memory(
    size: int, begin: int, bits: int, before: int, data: st.DataObject
) -> None:
    bits = min(bits, 8 * size)
    btf = Btf()
    number = btf.integer("number", size)
    inner = btf.composite("", ("field", number, begin, bits))
    outer = btf.composite("outer", ("", inner, 64 * before))
    argument = ("a", pointer(btf, outer))
    at = begin + 64 * before
    try:
        found = access("a.field", btf, argument)
    except PathError:
        # It lies in more bytes than its type has.
        assert (at + bits - 1) // 8 - at // 8 >= size
        return
    value = data.draw(st.integers(0, (1 << bits) - 1))
    length = 128
    if sys.byteorder == "little":
        memory = (value << at).to_bytes(length, "little")
    else:
        memory = (value << 8 * length - at - bits).to_bytes(length, "big")
    [step] = found.steps
    raw = int.from_bytes(memory[step : step + size], sys.byteorder)
    assert found.bits == bits
    assert raw >> found.shift & (1 << bits) - 1 == value
