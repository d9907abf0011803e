# SPDX-License-Identifier: Apache-2.0
"""perf_event_open(2) and the ioctls that run a BPF program on a perf event."""

from __future__ import annotations

import struct

from batchprobe import arch
from batchprobe.sys import libc
from batchprobe.sys.fds import open_noted
from batchprobe.sys.libc import address_of

__all__ = ["enable", "open_kprobe", "open_tracepoint"]

# include/uapi/linux/perf_event.h
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8
# struct perf_event_attr, the first 72 bytes (PERF_ATTR_SIZE_VER1): type, size, config,
# sample_period, sample_type, read_format, flags, wakeup_events, bp_type, kprobe_func (config1),
# kprobe_addr (config2).
_PERF_EVENT_ATTR = "=2I5Q2I2Q"

# Arguments of perf_event_open(2). A tracepoint or kprobe event must name a CPU to be system-wide,
# but its BPF program runs for the hits of every CPU (kprobe_perf_func(),
# kernel/trace/trace_kprobe.c).
_EVERY_TASK = -1
_CPU = 0
_NO_GROUP = -1


def open_tracepoint(event_id: int) -> int:
    """Open a perf event on the trace event with this id, for all tasks and CPUs.

    Returns its file descriptor. Raises KernelError.
    """
    return _open("perf_event_open(tracepoint)", _PERF_TYPE_TRACEPOINT, event_id)


def open_kprobe(pmu_type: int, address: int, *, is_return: bool) -> int:
    """Create a perf kprobe at a kernel address (Linux 4.17), for all tasks and CPUs.

    `pmu_type` is the number in /sys/bus/event_source/devices/kprobe/type. Returns the file
    descriptor. Raises KernelError: EILSEQ if `address` is not an instruction boundary, EINVAL if
    the kernel allows no probe there.
    """
    # /sys/bus/event_source/devices/kprobe/format/retprobe says config:0.
    call = f"perf_event_open(kprobe {address:#x})"
    return _open(call, pmu_type, int(is_return), kprobe_addr=address)


def _open(call: str, kind: int, config: int, *, kprobe_addr: int = 0) -> int:
    size = struct.calcsize(_PERF_EVENT_ATTR)
    attr = struct.pack(_PERF_EVENT_ATTR, kind, size, config, 0, 0, 0, 0, 0, 0, 0, kprobe_addr)
    # Writable memory: the kernel stores the size it expects if it rejects this one (E2BIG).
    memory = bytearray(attr)
    number = arch.current().syscalls.perf_event_open
    arguments = (address_of(memory), _EVERY_TASK, _CPU, _NO_GROUP, _PERF_FLAG_FD_CLOEXEC)
    return open_noted(lambda: libc.syscall(call, number, *arguments))


def enable(event_fd: int, prog_fd: int) -> None:
    """Attach a BPF program to a perf event, whose probes perf_event_open(2) has armed.

    Raises KernelError.
    """
    requests = arch.current().perf_requests
    libc.ioctl("ioctl(PERF_EVENT_IOC_SET_BPF)", event_fd, requests.set_bpf, prog_fd)
    libc.ioctl("ioctl(PERF_EVENT_IOC_ENABLE)", event_fd, requests.enable, 0)
