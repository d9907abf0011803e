# SPDX-License-Identifier: Apache-2.0
"""The running kernel's types (BTF), read with libbpf, which python3-bpfcc depends on."""

from __future__ import annotations

import ctypes
import struct
from contextlib import contextmanager

from batchprobe.errors import KernelError, UnsupportedError
from batchprobe.sys.files import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KernelBtf", "kernel_btf", "open_btf"]

_FOLDER = "/sys/kernel/btf"
_VMLINUX = f"{_FOLDER}/vmlinux"
_LIBRARIES = ("libbpf.so.1", "libbpf.so.0")
# include/uapi/linux/btf.h
_KIND_STRUCT, _KIND_FUNC = 4, 12
_COMPOSITES = frozenset({_KIND_STRUCT, 5})  # struct, union
_QUALIFIERS = frozenset({8, 9, 10, 11})  # typedef, volatile, const, restrict
_TYPE = struct.Struct("=3I")  # name_off, info, size or type
_MEMBER = struct.Struct("=3I")  # name_off, type, offset
_BIT_FIELDS = 1 << 31  # kind_flag: the offset's upper 8 bits are a width
_MAX_ERRNO = 4095


class KernelBtf:
    """Types of the kernel, until they are closed."""

    def __init__(self, library: ctypes.CDLL, btf: int) -> None:
        self._library = library
        self._btf = btf

    def close(self) -> None:
        """Free the types."""
        btf, self._btf = self._btf, 0
        self._library.btf__free(ctypes.c_void_p(btf))

    # Who reads the types of modules, one after another, has no block around them.
    __del__ = close

    def raw(self, module: str | None = None) -> bytes:
        """The bytes of the kernel's BTF, or of a module's, which continues the kernel's.

        Raises UnsupportedError where the module has none.
        """
        if module is None:
            return self._bytes(self._btf)
        if not exists(f"{_FOLDER}/{module}"):
            raise UnsupportedError(f"the module {module} has no BTF")
        # Since libbpf 0.5.
        load = getattr(self._library, "btf__load_module_btf", None)
        if load is None:
            raise UnsupportedError("this libbpf reads no types of modules (before 0.5)")
        load.restype = ctypes.c_void_p
        btf = _valid(load(module.encode(), ctypes.c_void_p(self._btf)), f"{_FOLDER}/{module}")
        try:
            return self._bytes(btf)
        finally:
            self._library.btf__free(ctypes.c_void_p(btf))

    def _bytes(self, btf: int) -> bytes:
        # The first since libbpf 0.6, the second before.
        names = ("btf__raw_data", "btf__get_raw_data")
        [raw, *_] = filter(None, (getattr(self._library, name, None) for name in names))
        raw.restype = ctypes.c_void_p
        size = ctypes.c_uint32()
        return ctypes.string_at(raw(ctypes.c_void_p(btf), ctypes.byref(size)), size.value)

    def offset(self, structure: str, *members: str) -> int:
        """Bytes from the start of a struct to a member, or to a member of that, and so on.

        Members of anonymous structs and unions count as the outer one's own. Raises
        UnsupportedError where the kernel has no such member.
        """
        find = self._library.btf__find_by_name_kind
        kind = int(find(ctypes.c_void_p(self._btf), structure.encode(), _KIND_STRUCT))
        offset = 0
        for member in members:
            found = None if kind <= 0 else self._member(kind, member)
            if found is None:
                raise UnsupportedError(
                    f"this kernel's struct {structure} has no {'.'.join(members)}",
                    remedy="please report the kernel's version",
                )
            offset, kind = offset + found[0], found[1]
        return offset

    def function(self, name: str) -> int:
        """The ID of a function. Raises UnsupportedError where the kernel has none of this name."""
        find = self._library.btf__find_by_name_kind
        found = int(find(ctypes.c_void_p(self._btf), name.encode(), _KIND_FUNC))
        if found <= 0:
            raise UnsupportedError(f"this kernel's BTF has no function {name}")
        return found

    def _member(self, kind: int, name: str) -> tuple[int, int] | None:
        """Offset in bytes and type of a member."""
        at, info = self._plain(kind)
        for number in range(info & 0xFFFF if info >> 24 & 0x1F in _COMPOSITES else 0):
            name_at, of, bits = _MEMBER.unpack(
                ctypes.string_at(at + _TYPE.size + number * _MEMBER.size, _MEMBER.size)
            )
            offset = (bits & 0xFFFFFF if info & _BIT_FIELDS else bits) // 8
            text = self._name(name_at)
            if text == name:
                return offset, of
            inner = None if text else self._member(of, name)
            if inner is not None:
                return offset + inner[0], inner[1]
        return None

    def _plain(self, kind: int) -> tuple[int, int]:
        """Address and info of a type without its typedefs and qualifiers."""
        while True:
            at = self._library.btf__type_by_id(ctypes.c_void_p(self._btf), kind)
            _, info, of = _TYPE.unpack(ctypes.string_at(at, _TYPE.size))
            if info >> 24 & 0x1F not in _QUALIFIERS:
                return at, info
            kind = of

    def _name(self, at: int) -> str:
        text: bytes = self._library.btf__name_by_offset(ctypes.c_void_p(self._btf), at)
        return text.decode()


@contextmanager
def kernel_btf() -> Iterator[KernelBtf]:
    """The kernel's types, for as long as the block lasts. Raises like `open_btf`."""
    btf = open_btf()
    try:
        yield btf
    finally:
        btf.close()


def open_btf() -> KernelBtf:
    """The kernel's types.

    Raises UnsupportedError where the kernel has none (CONFIG_DEBUG_INFO_BTF), or libbpf is missing.
    """
    if not exists(_VMLINUX):
        raise UnsupportedError("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")
    library = _libbpf()
    # The first since libbpf 0.5, the second before.
    load = getattr(library, "btf__load_vmlinux_btf", None) or library.libbpf_find_kernel_btf
    load.restype = ctypes.c_void_p
    return KernelBtf(library, _valid(load(), _VMLINUX))


def _valid(btf: int | None, file: str) -> int:
    # Before libbpf 1.0 an error is a pointer from the end of the address space.
    if not btf or btf > 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1 - _MAX_ERRNO:
        raise KernelError(f"reading {file} with libbpf", ctypes.get_errno())
    return btf


def _libbpf() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        library.btf__type_by_id.restype = ctypes.c_void_p
        library.btf__name_by_offset.restype = ctypes.c_char_p
        library.btf__free.restype = None
        return library
    raise UnsupportedError(
        "libbpf is missing, which reads the kernel's types",
        remedy="on Debian and Ubuntu: apt install libbpf1",
    )
