# SPDX-License-Identifier: Apache-2.0
"""Arguments and results of functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from btf import CHAR, LONG, NEEDS_LITTLE_ENDIAN, Btf, read_recorded

from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.functions.cache import SymbolCache
from batchprobe.functions.signatures import NoTypesError, Signature, Signatures
from batchprobe.functions.value_types import ValueKind


class Reader:
    """BTF by module, and how often it was asked for."""

    def __init__(self, **raw: bytes | Exception) -> None:
        self.raw = raw
        self.reads: list[str] = []

    def __call__(self, module: str | None) -> bytes:
        self.reads.append(module or "vmlinux")
        found = self.raw[self.reads[-1]]
        if isinstance(found, Exception):
            raise found
        return found


def in_c(signature: Signature, name: str) -> str:
    """A declaration."""
    parameters = [f"{one.type.name} {one.name}" for one in signature.parameters]
    parameters += ["..."] if signature.is_variadic else []
    result = signature.result.name if signature.result else "void"
    return f"{result} {name}({', '.join(parameters)})"


@NEEDS_LITTLE_ENDIAN
@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        (
            None,
            "vfs_read",
            "ssize_t %s(struct file * file, char * buf, size_t count, loff_t * pos)",
        ),
        (None, "tcp_sendmsg", "int %s(struct sock * sk, struct msghdr * msg, size_t size)"),
        (
            None,
            "do_sys_openat2",
            "long %s(int dfd, const char * filename, struct open_how * how)",
        ),
        (
            None,
            "__alloc_skb",
            "struct sk_buff * %s(unsigned int size, gfp_t gfp_mask, int flags, int node)",
        ),
        (None, "kfree_skb_reason", "void %s(struct sk_buff * skb, enum skb_drop_reason reason)"),
        (None, "_printk", "int %s(const char * fmt, ...)"),
        (None, "schedule", "void %s()"),
        (
            None,
            "crc32_body",
            "u32 %s(u32 crc, const unsigned char * buf, size_t len, const u32 (*)[256] tab)",
        ),
        ("ext4", "ext4_file_write_iter", "ssize_t %s(struct kiocb * iocb, struct iov_iter * from)"),
    ],
)
def test_recorded_functions(module: str | None, name: str, expected: str) -> None:
    found = Signatures(None, read_recorded).of(name, module)
    assert in_c(found, name) == expected % name
    assert found.module == module


@NEEDS_LITTLE_ENDIAN
def test_kinds_of_recorded_arguments() -> None:
    signatures = Signatures(None, read_recorded)

    def kinds(name: str) -> list[tuple[ValueKind, int]]:
        return [(one.type.kind, one.type.size) for one in signatures.of(name).parameters]

    assert kinds("vfs_write") == [
        (ValueKind.POINTER, 8),
        (ValueKind.STRING, 8),
        (ValueKind.INTEGER, 8),
        (ValueKind.POINTER, 8),
    ]
    assert kinds("quota_send_warning") == [
        (ValueKind.OTHER, 8),
        (ValueKind.INTEGER, 4),
        (ValueKind.CHARACTER, 1),
    ]
    how = signatures.of("umount_tree").parameters[1].type
    assert (how.kind, how.is_flags) == (ValueKind.ENUM, True)
    assert how.enumerators == {1: "UMOUNT_SYNC", 2: "UMOUNT_PROPAGATE", 4: "UMOUNT_CONNECTED"}
    state = signatures.of("cpu_startup_entry").parameters[0].type
    assert state.is_signed
    assert not state.is_flags
    assert state.enumerators[-1] == "CPUHP_INVALID"
    reason = signatures.of("kfree_skb_reason").parameters[1].type
    assert reason.enumerators[2] == "SKB_DROP_REASON_NO_SOCKET"


@NEEDS_LITTLE_ENDIAN
@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [
        ("type_show", None, "several functions of this name have different prototypes"),
        ("memcpy", None, "BTF leaves it out: "),
        ("vfs_read.constprop.0", None, r"a variant that the compiler made \(\.constprop\.0\)$"),
        (
            "vfs_read.part.0.isra.1",
            None,
            r"a variant that the compiler made \(\.part\.0\.isra\.1\)$",
        ),
        ("ext4_sync_file", None, "BTF leaves it out: "),
        ("vfs_read", "ext4", "BTF leaves it out: "),
    ],
)
def test_functions_without_types(name: str, module: str | None, reason: str) -> None:
    with pytest.raises(NoTypesError, match=f"^{reason}"):
        Signatures(None, read_recorded).of(name, module)


@NEEDS_LITTLE_ENDIAN
def test_prototypes_that_differ_in_names_only() -> None:
    signatures = Signatures(None, read_recorded)
    # The other function of this name calls it __unused.
    assert [one.name for one in signatures.of("__x64_sys_capset").parameters] == ["regs"]
    # One calls it prog, the other one fp.
    assert [one.name for one in signatures.of("bpf_jit_free").parameters] == ["arg0"]


@pytest.mark.parametrize(
    "other",
    [
        [("first", LONG)],
        [("first", LONG), ("second", CHAR)],
        [("first", LONG), ("second", LONG), ("third", LONG)],
        [("first", LONG), ("second", LONG), ("", 0)],
        [],
    ],
)
def test_prototypes_that_differ(other: list[tuple[str, int]]) -> None:
    for order in (1, -1):
        btf = Btf()
        for parameters in [[("first", LONG), ("second", LONG)], other][::order]:
            btf.function("twice", *parameters)
        with pytest.raises(NoTypesError, match="different prototypes"):
            Signatures(None, Reader(vmlinux=btf.raw)).of("twice")


def test_results_that_differ() -> None:
    btf = Btf()
    btf.function("twice", result=LONG)
    btf.function("twice")
    with pytest.raises(NoTypesError, match="different prototypes"):
        Signatures(None, Reader(vmlinux=btf.raw)).of("twice")


def test_parameters_without_a_name() -> None:
    btf = Btf()
    btf.function("unnamed", ("", LONG), ("size", LONG), ("", CHAR), ("", 0))
    found = Signatures(None, Reader(vmlinux=btf.raw)).of("unnamed")
    assert [one.name for one in found.parameters] == ["arg0", "size", "arg2"]
    assert found.is_variadic


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnsupportedError("this kernel has no BTF", remedy="another"), "^this kernel has no BTF$"),
        (KernelError("reading it", 13), r"^reading it: .* \(EACCES\)$"),
    ],
)
def test_a_kernel_without_btf_is_asked_once(error: Exception, reason: str) -> None:
    reader = Reader(vmlinux=error)
    signatures = Signatures(None, reader)
    for module in (None, "ext4", None):
        with pytest.raises(NoTypesError, match=reason):
            signatures.of("vfs_read", module)
    assert reader.reads == ["vmlinux"]


def test_a_module_without_btf_may_be_loaded_later() -> None:
    btf = Btf()
    btf.function("of_the_kernel")
    module = Btf(btf)
    module.function("of_the_module")
    reader = Reader(vmlinux=btf.raw, ext4=UnsupportedError("the module ext4 has no BTF"))
    signatures = Signatures(None, reader)
    with pytest.raises(NoTypesError, match=r"^the module ext4 has no BTF$"):
        signatures.of("of_the_module", "ext4")
    assert signatures.of("of_the_kernel", "").module is None
    reader.raw["ext4"] = module.raw
    assert signatures.of("of_the_module", "ext4").module == "ext4"
    assert reader.reads == ["vmlinux", "ext4", "ext4"]


@NEEDS_LITTLE_ENDIAN
def test_types_are_kept(tmp_path: Path) -> None:
    raw = {name: read_recorded(name) for name in ("vmlinux", "ext4")}

    def start(loaded: str = "boot") -> tuple[Reader, list[Signature]]:
        reader = Reader(**raw)
        signatures = Signatures(SymbolCache(tmp_path, lambda: loaded), reader)
        pairs = [("vfs_read", None), ("ext4_sync_file", "ext4"), ("vfs_write", None)]
        return reader, [signatures.of(name, module) for name, module in pairs]

    cold, first = start()
    warm, second = start()
    assert cold.reads == ["vmlinux", "ext4"]
    assert warm.reads == []
    assert second == first
    assert start("other modules")[0].reads == ["vmlinux", "ext4"]
