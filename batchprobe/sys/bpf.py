"""bpf(2), perf_event_open(2) and membarrier(2), which libc does not wrap, with errno kept; mmap(2),
for Python's own keeps a descriptor for each mapping, and is a library to be loaded at each start.
"""

from __future__ import annotations

import errno
import fcntl
import struct
import sys
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
)
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from batchprobe import arch
from batchprobe.errors import KernelError
from batchprobe.sys.fds import open_noted

if TYPE_CHECKING:
    from _ctypes import Array

__all__ = [
    "BPF_F_MMAPABLE",
    "BPF_MAP_TYPE_ARRAY",
    "BPF_MAP_TYPE_ARRAY_OF_MAPS",
    "BPF_MAP_TYPE_HASH",
    "BPF_TRACE_KPROBE_MULTI",
    "KPROBE_MULTI_RETURN",
    "RETURN_0",
    "kprobe_multi_link",
    "link_missed",
    "map_create",
    "map_items",
    "map_update",
    "mapped",
    "membarrier_global",
    "perf_kprobe_open",
    "perf_run_bpf",
    "perf_tracepoint_open",
    "prog_load",
    "prog_misses",
]

# include/uapi/linux/bpf.h
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _, _MAP_NEXT_KEY, _PROG_LOAD = range(6)
_OBJ_GET_INFO = 15
_LINK_CREATE = 28
BPF_MAP_TYPE_HASH = 1
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_ARRAY_OF_MAPS = 12
BPF_F_MMAPABLE = 1 << 10
_PROG_TYPE_KPROBE = 2
BPF_TRACE_KPROBE_MULTI = 42
KPROBE_MULTI_RETURN = 1
_LOG_SIZE = 1 << 20
_LOAD_TRIES = 8
_NO_NODE = 0  # unless BPF_F_NUMA_NODE is set, it is not looked at

# The shortest program: r0 = 0; exit. What the kernel's interface costs is measured with it.
RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED = 1
_MAP_FAILED = (1 << 8 * struct.calcsize("P")) - 1

# include/uapi/linux/membarrier.h
_MEMBARRIER_CMD_GLOBAL = 1

# include/uapi/linux/perf_event.h
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8


# The members of union bpf_attr that a command has, and of struct perf_event_attr up to config2: not
# as ctypes.Structure, of which each class takes half a millisecond to make under emulation.
_MAP_CREATE_ATTR = "=7I16s"
_MAP_ELEM_ATTR = "=2I3Q"
_PROG_LOAD_ATTR = "=2I2Q2IQ2I16s2I"
_KPROBE_MULTI_ATTR = "=6I3Q"
_OBJ_INFO_ATTR = "=2IQ"
_PERF_EVENT_ATTR = "=2I5Q2I2Q"


# What `ctypes` is made of: the package around it takes as long to import as a probe to arm.
if TYPE_CHECKING:
    from ctypes import c_char, c_long, c_ubyte, c_void_p

    _Buffer = Array[c_char]
else:

    class c_char(_SimpleCData):  # noqa: N801
        _type_ = "c"

    class c_ubyte(_SimpleCData):  # noqa: N801
        _type_ = "B"

    class c_long(_SimpleCData):  # noqa: N801
        _type_ = "l"

    class c_void_p(_SimpleCData):  # noqa: N801
        _type_ = "P"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_void_p


class _SystemCall(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_long


def _buffer(data: bytes | int) -> _Buffer:
    """Memory of its own, for so many bytes or with these."""
    if isinstance(data, int):
        return (c_char * data)()
    buffer = (c_char * len(data))()
    buffer.raw = data
    return buffer


@cache
def _libc(name: str) -> Callable[..., int]:
    """One of its functions; each argument is a c_long, as wide as a register everywhere."""
    kind = _SystemCall if name == "syscall" else _Function
    # The program itself, and all that it is linked with.
    everything = dlopen(None, 0)  # type: ignore[arg-type]
    return kind(dlsym(everything, name))


def _syscall(what: str, number: int, *arguments: int) -> int:
    result = _libc("syscall")(*map(c_long, (number, *arguments)))
    if result < 0:
        raise KernelError(what, get_errno())
    return result


def _ioctl(what: str, fd: int, request: int, argument: int) -> None:
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise KernelError(what, error.errno or 0) from None


def _bpf(what: str, command: int, attr: _Buffer) -> int:
    number = arch.current().syscalls.bpf
    return _syscall(what, number, command, addressof(attr), len(attr))


def mapped(what: str, fd: int, size: int, *, writable: bool = False) -> memoryview:
    """The first `size` bytes behind a descriptor, shared with who else has them mapped.

    They stay mapped until the last view of them is released. Raises KernelError.
    """
    protection = _PROT_READ | _PROT_WRITE if writable else _PROT_READ
    address = _libc("mmap")(*map(c_long, (0, size, protection, _MAP_SHARED, fd, 0)))
    if address == _MAP_FAILED:
        raise KernelError(f"mmap({what})", get_errno())

    class Mapping(c_ubyte * size):  # type: ignore[misc]
        """Views hold on to it."""

        def __del__(self) -> None:
            _libc("munmap")(c_long(addressof(self)), c_long(size))

    view = memoryview(Mapping.from_address(address)).cast("B")
    return view if writable else view.toreadonly()


def map_create(
    name: str,
    kind: int,
    *,
    key_size: int,
    value_size: int,
    entries: int,
    flags: int = 0,
    inner_fd: int = 0,
) -> int:
    """Create a BPF map; returns its file descriptor."""
    sizes = (kind, key_size, value_size, entries, flags, inner_fd, _NO_NODE)
    attr = _buffer(struct.pack(_MAP_CREATE_ATTR, *sizes, name.encode()[:15]))
    return open_noted(lambda: _bpf(f"bpf(BPF_MAP_CREATE, {name})", _MAP_CREATE, attr))


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set one element of a map."""
    key_buffer = _buffer(key)
    value_buffer = _buffer(value)
    attr = _map_elem(fd, addressof(key_buffer), addressof(value_buffer))
    _bpf("bpf(BPF_MAP_UPDATE_ELEM)", _MAP_UPDATE, attr)


def _map_elem(fd: int, key: int, value: int) -> _Buffer:
    """Pointers to a key, and to its value or where the next key goes."""
    return _buffer(struct.pack(_MAP_ELEM_ATTR, fd, 0, key, value, 0))


def map_items(fd: int, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    """All elements of a hash map, read one by one."""
    items: list[tuple[bytes, bytes]] = []
    key = _buffer(key_size)
    value = _buffer(value_size)
    previous = 0
    while True:
        attr = _map_elem(fd, previous, addressof(key))
        try:
            _bpf("bpf(BPF_MAP_GET_NEXT_KEY)", _MAP_NEXT_KEY, attr)
        except KernelError as error:
            if error.errno == errno.ENOENT:  # that was the last key
                return items
            raise
        attr = _map_elem(fd, addressof(key), addressof(value))
        _bpf("bpf(BPF_MAP_LOOKUP_ELEM)", _MAP_LOOKUP, attr)
        items.append((key.raw, value.raw))
        previous = addressof(key)


def prog_load(name: str, instructions: bytes, *, attach_type: int = 0) -> int:
    """Load a GPL kprobe program; returns its file descriptor.

    Raises KernelError; the verifier's log, where it said anything, is a note on the exception.
    """
    code = _buffer(instructions)
    license_name = _buffer(b"GPL\0")

    def attr(log: _Buffer | None) -> _Buffer:
        packed = struct.pack(
            _PROG_LOAD_ATTR,
            *(_PROG_TYPE_KPROBE, len(instructions) // 8),
            *(addressof(code), addressof(license_name)),
            *((0, 0, 0) if log is None else (1, len(log), addressof(log))),
            *(0, 0, name.encode()[:15], 0, attach_type),
        )
        return _buffer(packed)

    what = f"bpf(BPF_PROG_LOAD, {name})"
    try:
        return open_noted(lambda: _load(what, attr(None)))
    except KernelError as error:
        # Only a refusal pays for a log.
        log = _buffer(_LOG_SIZE)
        try:
            return open_noted(lambda: _load(what, attr(log)))
        except KernelError:
            if log.value:
                error.add_note(log.value.decode(errors="replace")[-4000:])
            raise error from None


def _load(what: str, attr: _Buffer) -> int:
    for _ in range(_LOAD_TRIES):
        try:
            return _bpf(what, _PROG_LOAD, attr)
        except KernelError as error:
            # A signal came while the program was verified (do_check, kernel/bpf/verifier.c).
            if error.errno != errno.EAGAIN:
                raise
    return _bpf(what, _PROG_LOAD, attr)


def kprobe_multi_link(prog_fd: int, addresses: list[int], *, flags: int = 0) -> int:
    """One kprobe_multi link on all `addresses` (Linux 5.18, CONFIG_FPROBE); returns its fd."""
    count = len(addresses)
    address_array = _buffer(struct.pack(f"={count}Q", *addresses))
    packed = struct.pack(
        _KPROBE_MULTI_ATTR,
        *(prog_fd, 0, BPF_TRACE_KPROBE_MULTI, 0, flags, count),
        *(0, addressof(address_array), 0),
    )
    attr = _buffer(packed)
    return open_noted(lambda: _bpf("bpf(BPF_LINK_CREATE, kprobe_multi)", _LINK_CREATE, attr))


# struct bpf_link_info grew to this size with the member `missed` of its kprobe members (6.7).
_LINK_INFO_WITH_MISSED = 56
_LINK_MISSED_AT = 32
# offsetof(struct bpf_prog_info, recursion_misses)
_PROG_MISSES_AT = 208


def _info(fd: int, size: int) -> bytes:
    buffer = _buffer(size)
    attr = _buffer(struct.pack(_OBJ_INFO_ATTR, fd, size, addressof(buffer)))
    _bpf("bpf(BPF_OBJ_GET_INFO_BY_FD)", _OBJ_GET_INFO, attr)
    _, length, _ = struct.unpack(_OBJ_INFO_ATTR, attr)
    return buffer.raw[:length]


def link_missed(link_fd: int) -> int | None:
    """Hits that a kprobe_multi link's fprobe dropped, None before Linux 6.7."""
    info = _info(link_fd, _LINK_INFO_WITH_MISSED)
    if len(info) < _LINK_INFO_WITH_MISSED:
        return None
    return int.from_bytes(info[_LINK_MISSED_AT : _LINK_MISSED_AT + 8], sys.byteorder)


def prog_misses(prog_fd: int) -> int:
    """Runs skipped since another program ran on that CPU; for kprobes counted since Linux 6.7."""
    return int.from_bytes(_info(prog_fd, _PROG_MISSES_AT + 8)[_PROG_MISSES_AT:], sys.byteorder)


def perf_tracepoint_open(event_id: int) -> int:
    """A perf event on a trace event, for all tasks; returns its fd, closed on exec.

    It is opened on CPU 0, yet a BPF program on it runs for the hits of every CPU
    (kprobe_perf_func, kernel/trace/trace_kprobe.c).
    """
    return _perf_open("perf_event_open(tracepoint)", _PERF_TYPE_TRACEPOINT, event_id)


def perf_kprobe_open(pmu_type: int, address: int, *, is_return: bool) -> int:
    """A perf kprobe (Linux 4.17) at a kernel address, for all tasks; returns its fd.

    Raises KernelError: EILSEQ off an instruction boundary, EINVAL where no probe may stand.
    """
    # /sys/bus/event_source/devices/kprobe/format/retprobe: config:0
    what = f"perf_event_open(kprobe {address:#x})"
    return _perf_open(what, pmu_type, int(is_return), kprobe_addr=address)


def _perf_open(what: str, kind: int, config: int, *, kprobe_addr: int = 0) -> int:
    size = struct.calcsize(_PERF_EVENT_ATTR)
    attr = struct.pack(_PERF_EVENT_ATTR, kind, size, config, 0, 0, 0, 0, 0, 0, 0, kprobe_addr)
    # The kernel writes to it what size it wants, if it refuses this one.
    buffer = _buffer(attr)
    every_task, cpu, no_group = -1, 0, -1
    return open_noted(
        lambda: _syscall(
            what,
            arch.current().syscalls.perf_event_open,
            *(addressof(buffer), every_task, cpu, no_group, _PERF_FLAG_FD_CLOEXEC),
        )
    )


def perf_run_bpf(event_fd: int, prog_fd: int) -> None:
    """Attach a program to a perf event and enable it: from here the probe is armed."""
    requests = arch.current().perf_requests
    _ioctl("ioctl(PERF_EVENT_IOC_SET_BPF)", event_fd, requests.set_bpf, prog_fd)
    _ioctl("ioctl(PERF_EVENT_IOC_ENABLE)", event_fd, requests.enable, 0)


def membarrier_global() -> None:
    """Wait for a grace period: synchronize_rcu() reachable from user space (Linux 4.3).

    Raises KernelError: EINVAL on a kernel booted with nohz_full (kernel/sched/membarrier.c),
    ENOSYS without CONFIG_MEMBARRIER.
    """
    _syscall(
        "membarrier(MEMBARRIER_CMD_GLOBAL)",
        arch.current().syscalls.membarrier,
        *(_MEMBARRIER_CMD_GLOBAL, 0, 0),
    )
