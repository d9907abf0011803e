"""bpf(2), perf_event_open(2) and membarrier(2), which libc does not wrap, with errno kept; mmap(2),
for Python's own keeps a descriptor for each mapping, and is a library to be loaded at each start.
"""

from __future__ import annotations

import ctypes
import errno
import sys

from batchprobe import arch
from batchprobe._lean import cache
from batchprobe.descriptors import open_noted
from batchprobe.errors import KernelError

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

# The shortest program: r0 = 0; exit. What the kernel's interface costs is measured with it.
RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED = 1
_MAP_FAILED = ctypes.c_void_p(-1).value

# include/uapi/linux/membarrier.h
_MEMBARRIER_CMD_GLOBAL = 1

# include/uapi/linux/perf_event.h
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8


class _MapCreate(ctypes.Structure):
    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("map_name", ctypes.c_char * 16),
    )


class _MapElem(ctypes.Structure):
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),  # or next_key
        ("flags", ctypes.c_uint64),
    )


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
    )


class _KprobeMultiCreate(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("link_flags", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cnt", ctypes.c_uint32),
        ("syms", ctypes.c_uint64),
        ("addrs", ctypes.c_uint64),
        ("cookies", ctypes.c_uint64),
    )


class _ObjInfo(ctypes.Structure):
    _fields_ = (
        ("bpf_fd", ctypes.c_uint32),
        ("info_len", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


class _PerfEventAttr(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("kprobe_func", ctypes.c_uint64),  # config1
        ("kprobe_addr", ctypes.c_uint64),  # config2
    )


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


def _syscall(what: str, number: int, *args: object) -> int:
    result: int = _libc().syscall(ctypes.c_long(number), *args)
    if result < 0:
        raise KernelError(what, ctypes.get_errno())
    return result


def _ioctl(what: str, fd: int, request: int, argument: int) -> None:
    if _libc().ioctl(fd, request, argument) < 0:
        raise KernelError(what, ctypes.get_errno())


def _bpf(what: str, command: int, attr: ctypes.Structure) -> int:
    return _syscall(
        what,
        arch.current().syscalls.bpf,
        ctypes.c_long(command),
        ctypes.byref(attr),
        ctypes.c_ulong(ctypes.sizeof(attr)),
    )


def mapped(what: str, fd: int, size: int, *, writable: bool = False) -> memoryview:
    """The first `size` bytes behind a descriptor, shared with who else has them mapped.

    They stay mapped until the last view of them is released. Raises KernelError.
    """
    protection = _PROT_READ | _PROT_WRITE if writable else _PROT_READ
    address = _libc().mmap(None, size, protection, _MAP_SHARED, fd, 0)
    if address == _MAP_FAILED:
        raise KernelError(f"mmap({what})", ctypes.get_errno())

    class Mapping(ctypes.c_ubyte * size):  # type: ignore[misc]
        """Views hold on to it."""

        def __del__(self) -> None:
            _libc().munmap(ctypes.addressof(self), size)

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
    attr = _MapCreate(kind, key_size, value_size, entries, flags, inner_fd, 0, name.encode()[:15])
    return open_noted(lambda: _bpf(f"bpf(BPF_MAP_CREATE, {name})", _MAP_CREATE, attr))


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set one element of a map."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    attr = _MapElem(fd, 0, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), 0)
    _bpf("bpf(BPF_MAP_UPDATE_ELEM)", _MAP_UPDATE, attr)


def map_items(fd: int, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    """All elements of a hash map, read one by one."""
    items: list[tuple[bytes, bytes]] = []
    key = ctypes.create_string_buffer(key_size)
    value = ctypes.create_string_buffer(value_size)
    previous = 0
    while True:
        attr = _MapElem(fd, 0, previous, ctypes.addressof(key), 0)
        try:
            _bpf("bpf(BPF_MAP_GET_NEXT_KEY)", _MAP_NEXT_KEY, attr)
        except KernelError as error:
            if error.errno == errno.ENOENT:  # that was the last key
                return items
            raise
        attr = _MapElem(fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
        _bpf("bpf(BPF_MAP_LOOKUP_ELEM)", _MAP_LOOKUP, attr)
        items.append((key.raw, value.raw))
        previous = ctypes.addressof(key)


def prog_load(name: str, instructions: bytes, *, attach_type: int = 0) -> int:
    """Load a GPL kprobe program; returns its file descriptor.

    Raises KernelError; the verifier's log, where it said anything, is a note on the exception.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_name = ctypes.create_string_buffer(b"GPL")
    attr = _ProgLoad(
        prog_type=_PROG_TYPE_KPROBE,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(license_name),
        prog_name=name.encode()[:15],
        expected_attach_type=attach_type,
    )
    what = f"bpf(BPF_PROG_LOAD, {name})"
    try:
        return open_noted(lambda: _load(what, attr))
    except KernelError as error:
        # Only a refusal pays for a log.
        log = ctypes.create_string_buffer(_LOG_SIZE)
        attr.log_level, attr.log_size, attr.log_buf = 1, _LOG_SIZE, ctypes.addressof(log)
        try:
            return open_noted(lambda: _load(what, attr))
        except KernelError:
            if log.value:
                error.add_note(log.value.decode(errors="replace")[-4000:])
            raise error from None


def _load(what: str, attr: _ProgLoad) -> int:
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
    address_array = (ctypes.c_uint64 * count)(*addresses)
    attr = _KprobeMultiCreate(
        prog_fd=prog_fd,
        attach_type=BPF_TRACE_KPROBE_MULTI,
        flags=flags,
        cnt=count,
        addrs=ctypes.addressof(address_array),
    )
    return open_noted(lambda: _bpf("bpf(BPF_LINK_CREATE, kprobe_multi)", _LINK_CREATE, attr))


# struct bpf_link_info grew to this size with the member `missed` of its kprobe members (6.7).
_LINK_INFO_WITH_MISSED = 56
_LINK_MISSED_AT = 32
# offsetof(struct bpf_prog_info, recursion_misses)
_PROG_MISSES_AT = 208


def _info(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    attr = _ObjInfo(fd, size, ctypes.addressof(buffer))
    _bpf("bpf(BPF_OBJ_GET_INFO_BY_FD)", _OBJ_GET_INFO, attr)
    return buffer.raw[: attr.info_len]


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
    attr = _PerfEventAttr(type=_PERF_TYPE_TRACEPOINT, config=event_id)
    return _perf_open("perf_event_open(tracepoint)", attr)


def perf_kprobe_open(pmu_type: int, address: int, *, is_return: bool) -> int:
    """A perf kprobe (Linux 4.17) at a kernel address, for all tasks; returns its fd.

    Raises KernelError: EILSEQ off an instruction boundary, EINVAL where no probe may stand.
    """
    # /sys/bus/event_source/devices/kprobe/format/retprobe: config:0
    attr = _PerfEventAttr(type=pmu_type, config=int(is_return), kprobe_addr=address)
    return _perf_open(f"perf_event_open(kprobe {address:#x})", attr)


def _perf_open(what: str, attr: _PerfEventAttr) -> int:
    attr.size = ctypes.sizeof(attr)
    return open_noted(
        lambda: _syscall(
            what,
            arch.current().syscalls.perf_event_open,
            ctypes.byref(attr),
            ctypes.c_long(-1),  # every task
            ctypes.c_long(0),  # CPU 0
            ctypes.c_long(-1),
            ctypes.c_long(_PERF_FLAG_FD_CLOEXEC),
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
        ctypes.c_long(_MEMBARRIER_CMD_GLOBAL),
        ctypes.c_long(0),
        ctypes.c_long(0),
    )
