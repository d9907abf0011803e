# SPDX-License-Identifier: Apache-2.0
"""bpf(2): maps, programs, and links of kprobes."""

from __future__ import annotations

import errno
import struct
import sys

from batchprobe import arch
from batchprobe.errors import KernelError, VerifierError
from batchprobe.sys import libc
from batchprobe.sys.fds import open_noted
from batchprobe.sys.libc import address_of

__all__ = [
    "BPF_F_MMAPABLE",
    "BPF_MAP_TYPE_ARRAY",
    "BPF_MAP_TYPE_ARRAY_OF_MAPS",
    "BPF_MAP_TYPE_CGROUP_ARRAY",
    "BPF_MAP_TYPE_HASH",
    "BPF_MAP_TYPE_PERCPU_ARRAY",
    "BPF_MAP_TYPE_PROG_ARRAY",
    "BPF_MAP_TYPE_RINGBUF",
    "BPF_TRACE_KPROBE_MULTI",
    "BPF_TRACE_KPROBE_SESSION",
    "KPROBE_MULTI_RETURN",
    "PROG_TYPE_KPROBE",
    "PROG_TYPE_RAW_TRACEPOINT",
    "PROG_TYPE_TRACEPOINT",
    "RETURN_0",
    "kprobe_multi_link",
    "link_missed",
    "map_create",
    "map_items",
    "map_update",
    "perf_link",
    "perf_link_missed",
    "prog_load",
    "prog_misses",
    "prog_type",
    "raw_tracepoint",
]

# enum bpf_cmd, include/uapi/linux/bpf.h
_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_GET_NEXT_KEY = 4
_PROG_LOAD = 5
_OBJ_GET_INFO_BY_FD = 15
_RAW_TRACEPOINT_OPEN = 17
_LINK_CREATE = 28

BPF_MAP_TYPE_HASH = 1
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_PROG_ARRAY = 3
BPF_MAP_TYPE_PERCPU_ARRAY = 6
BPF_MAP_TYPE_CGROUP_ARRAY = 8
BPF_MAP_TYPE_ARRAY_OF_MAPS = 12
BPF_MAP_TYPE_RINGBUF = 27
BPF_F_MMAPABLE = 1 << 10
BPF_TRACE_KPROBE_MULTI = 42
BPF_TRACE_KPROBE_SESSION = 56
_BPF_PERF_EVENT = 41
KPROBE_MULTI_RETURN = 1
PROG_TYPE_KPROBE = 2
PROG_TYPE_TRACEPOINT = 5
PROG_TYPE_RAW_TRACEPOINT = 17

RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")
"""The shortest valid program: r0 = 0; exit."""

# The members of union bpf_attr that each command reads.
# map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
_MAP_CREATE_ATTR = "=7I16s"
# map_fd, padding, key, value or next_key, flags
_MAP_ELEM_ATTR = "=2I3Q"
# prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
# prog_name, prog_ifindex, expected_attach_type
_PROG_LOAD_ATTR = "=2I2Q2IQ2I16s2I"
# prog_fd, target_fd, attach_type, flags, kprobe_multi: flags, cnt, syms, addrs, cookies
_KPROBE_MULTI_ATTR = "=6I3Q"
# prog_fd, target_fd, attach_type, flags, perf_event: bpf_cookie
_PERF_LINK_ATTR = "=4IQ"
# name, prog_fd
_RAW_TRACEPOINT_ATTR = "=QI4x"
# bpf_fd, info_len, info
_OBJ_INFO_ATTR = "=2IQ"

_NAME_LENGTH = 15  # BPF_OBJ_NAME_LEN without the NUL

# The licence of bpf/, GPL-2.0-only OR BSD-2-Clause, in the words that
# license_is_gpl_compatible() accepts (include/linux/license.h). bpf_get_func_ip() and others are
# for GPL-compatible programs only.
_LICENSE = b"Dual BSD/GPL\0"
_LOG_SIZE = 1 << 20
_LOG_TAIL = 4000
_LOAD_TRIES = 8

# Size of struct bpf_link_info since it has misses (Linux 6.7), and the offsets of
# kprobe_multi.missed and perf_event.kprobe.missed.
_LINK_INFO_WITH_MISSED = 56
_LINK_MISSED_AT = 32
_PERF_LINK_MISSED_AT = 48
# offsetof(struct bpf_prog_info, recursion_misses)
_PROG_MISSES_AT = 208


def _bpf(call: str, command: int, attr: bytearray) -> int:
    return libc.syscall(call, arch.current().syscalls.bpf, command, address_of(attr), len(attr))


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
    """Create a BPF map and return its file descriptor; sizes are in bytes. Raises KernelError."""
    numa_node = 0  # ignored without BPF_F_NUMA_NODE
    sizes = (kind, key_size, value_size, entries, flags, inner_fd, numa_node)
    attr = bytearray(struct.pack(_MAP_CREATE_ATTR, *sizes, name.encode()[:_NAME_LENGTH]))
    return open_noted(lambda: _bpf(f"bpf(BPF_MAP_CREATE, {name})", _MAP_CREATE, attr))


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set one element of a map. Raises KernelError."""
    key_buffer = bytearray(key)
    value_buffer = bytearray(value)
    attr = _map_elem(fd, address_of(key_buffer), address_of(value_buffer))
    _bpf("bpf(BPF_MAP_UPDATE_ELEM)", _MAP_UPDATE_ELEM, attr)


def map_lookup(fd: int, key: bytes | bytearray, value_size: int) -> bytes | None:
    """Read one element of a map; None if a hash map has no such key. Raises KernelError."""
    key_buffer = bytearray(key)
    value = bytearray(value_size)
    attr = _map_elem(fd, address_of(key_buffer), address_of(value))
    try:
        _bpf("bpf(BPF_MAP_LOOKUP_ELEM)", _MAP_LOOKUP_ELEM, attr)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(value)


def map_items(fd: int, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    """Read every element of a hash map, one by one; where a program deletes elements meanwhile,
    some may be left out. Raises KernelError.
    """
    items: dict[bytes, bytes] = {}
    key = bytearray(key_size)
    previous = 0
    while True:
        attr = _map_elem(fd, previous, address_of(key))
        try:
            _bpf("bpf(BPF_MAP_GET_NEXT_KEY)", _MAP_GET_NEXT_KEY, attr)
        except KernelError as error:
            if error.errno == errno.ENOENT:  # the previous key was the last one
                return list(items.items())
            raise
        value = map_lookup(fd, key, value_size)
        if value is not None:
            # By key, because the kernel starts again where the previous key is gone.
            items[bytes(key)] = value
        previous = address_of(key)


def _map_elem(fd: int, key: int, value: int) -> bytearray:
    """Attributes for an element command; `key` and `value` are addresses."""
    return bytearray(struct.pack(_MAP_ELEM_ATTR, fd, 0, key, value, 0))


def prog_load(
    name: str,
    instructions: bytes,
    *,
    prog_type: int = PROG_TYPE_KPROBE,
    attach_type: int = 0,
) -> int:
    """Load a program under the licence of bpf/ and return its file descriptor.

    Raises VerifierError with the verifier's log.
    """
    code = bytearray(instructions)
    license_text = bytearray(_LICENSE)
    call = f"bpf(BPF_PROG_LOAD, {name})"

    def load(log: bytearray | None) -> int:
        attr = struct.pack(
            _PROG_LOAD_ATTR,
            *(prog_type, len(instructions) // 8),
            *(address_of(code), address_of(license_text)),
            *((0, 0, 0) if log is None else (1, len(log), address_of(log))),
            *(0, 0, name.encode()[:_NAME_LENGTH], 0, attach_type),
        )
        return open_noted(lambda: _load(call, bytearray(attr)))

    try:
        return load(None)
    except KernelError as error:
        # Load again with a log, so that only a refused program pays for writing one.
        log = bytearray(_LOG_SIZE)
        try:
            return load(log)
        except KernelError:
            # The first errno: a log that does not fit changes the second one to ENOSPC.
            text = log.partition(b"\0")[0].decode(errors="replace")
            refused = VerifierError(call, error.errno, text)
            if refused.log:
                refused.add_note(refused.log[-_LOG_TAIL:])
            raise refused from error


def _load(call: str, attr: bytearray) -> int:
    for _ in range(_LOAD_TRIES):
        try:
            return _bpf(call, _PROG_LOAD, attr)
        except KernelError as error:
            # A signal interrupted the verifier (do_check(), kernel/bpf/verifier.c).
            if error.errno != errno.EAGAIN:
                raise
    return _bpf(call, _PROG_LOAD, attr)


def kprobe_multi_link(
    prog_fd: int,
    addresses: list[int],
    *,
    flags: int = 0,
    attach_type: int = BPF_TRACE_KPROBE_MULTI,
) -> int:
    """Attach a program to all `addresses` with one link (Linux 5.18, CONFIG_FPROBE).

    `flags` may be KPROBE_MULTI_RETURN, `attach_type` BPF_TRACE_KPROBE_SESSION (Linux 6.10) if the
    program is of that type. Returns the link's file descriptor. Raises KernelError.
    """
    count = len(addresses)
    array = bytearray(struct.pack(f"={count}Q", *addresses))
    packed = struct.pack(
        _KPROBE_MULTI_ATTR,
        *(prog_fd, 0, attach_type, 0),
        *(flags, count, 0, address_of(array), 0),
    )
    attr = bytearray(packed)
    return open_noted(lambda: _bpf("bpf(BPF_LINK_CREATE, kprobe_multi)", _LINK_CREATE, attr))


def raw_tracepoint(name: str, prog_fd: int) -> int:
    """Run a program at a raw tracepoint (Linux 4.17) until the returned descriptor is closed.

    Raises KernelError.
    """
    memory = bytearray(name.encode() + b"\0")
    attr = bytearray(struct.pack(_RAW_TRACEPOINT_ATTR, address_of(memory), prog_fd))
    call = f"bpf(BPF_RAW_TRACEPOINT_OPEN, {name})"
    return open_noted(lambda: _bpf(call, _RAW_TRACEPOINT_OPEN, attr))


def link_missed(link_fd: int) -> int | None:
    """Hits that the fprobe of a kprobe_multi link dropped; None before Linux 6.7.

    Raises KernelError.
    """
    return _missed(link_fd, _LINK_MISSED_AT)


def perf_link(prog_fd: int, event_fd: int) -> int:
    """Attach a program to a perf event with a link (Linux 5.15), which keeps the event open.

    Returns the link's file descriptor. Raises KernelError.
    """
    attr = bytearray(struct.pack(_PERF_LINK_ATTR, prog_fd, event_fd, _BPF_PERF_EVENT, 0, 0))
    return open_noted(lambda: _bpf("bpf(BPF_LINK_CREATE, perf_event)", _LINK_CREATE, attr))


def perf_link_missed(link_fd: int) -> int | None:
    """Hits that the kprobe of a perf event missed; None before Linux 6.7.

    Raises KernelError.
    """
    return _missed(link_fd, _PERF_LINK_MISSED_AT)


def _missed(link_fd: int, at: int) -> int | None:
    info = _info(link_fd, _LINK_INFO_WITH_MISSED)
    if len(info) < _LINK_INFO_WITH_MISSED:
        return None
    return int.from_bytes(info[at : at + 8], sys.byteorder)


def prog_misses(prog_fd: int) -> int:
    """Runs of a program that the kernel skipped because another one was running on the CPU.

    Counted for kprobe programs since Linux 6.7 (recursion_misses). Raises KernelError.
    """
    return int.from_bytes(_info(prog_fd, _PROG_MISSES_AT + 8)[_PROG_MISSES_AT:], sys.byteorder)


def prog_type(prog_fd: int) -> int:
    """The BPF_PROG_TYPE_* of a program. Raises KernelError."""
    return int.from_bytes(_info(prog_fd, 4), sys.byteorder)


def _info(fd: int, size: int) -> bytes:
    """Up to `size` bytes of an object's info struct; fewer if the kernel's struct is smaller."""
    info = bytearray(size)
    attr = bytearray(struct.pack(_OBJ_INFO_ATTR, fd, size, address_of(info)))
    _bpf("bpf(BPF_OBJ_GET_INFO_BY_FD)", _OBJ_GET_INFO_BY_FD, attr)
    _, length, _ = struct.unpack(_OBJ_INFO_ATTR, attr)
    return bytes(info[:length])
