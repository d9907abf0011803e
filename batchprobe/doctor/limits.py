# SPDX-License-Identifier: Apache-2.0
"""Checks of grace periods and resource limits, which decide speed and how many probes fit."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from batchprobe.commit.barrier import wait_through_map
from batchprobe.commit.rcu_expedited import why_not_expedited
from batchprobe.errors import KernelError
from batchprobe.kernel import host
from batchprobe.kernel.host import AS_ROOT, Finding, ok, warn
from batchprobe.sys import libc

__all__ = [
    "check_barrier",
    "check_locked_memory",
    "check_open_files",
    "check_rcu_expedited",
    "milliseconds_since",
    "needs_root",
]

# The kernel's default hard limit (INR_OPEN_MAX, include/uapi/linux/fs.h).
_DEFAULT_OPEN_FILES = 4096


def needs_root() -> Finding:
    """The finding of a check that only root can make."""
    return warn("not tried: needs root", AS_ROOT)


def milliseconds_since(began: float) -> str:
    """The time since `began`, a value of time.perf_counter(), as text."""
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"


def check_barrier() -> Finding:
    """Wait for a grace period, as a commit does before counts are final."""
    began = time.perf_counter()
    try:
        libc.membarrier_global()
    except KernelError as error:
        if os.geteuid() != 0:
            return needs_root()
        began = time.perf_counter()
        wait_through_map()
        return ok(f"by replacing a BPF map, {milliseconds_since(began)} ({error})")
    return ok(f"membarrier(MEMBARRIER_CMD_GLOBAL), {milliseconds_since(began)}")


def check_rcu_expedited() -> Finding:
    """Check whether `--barrier auto` expedites the grace periods of a removal."""
    settings = ", ".join(f"{name}={_setting(name)}" for name in ("rcu_expedited", "rcu_normal"))
    why = why_not_expedited()
    if why is None:
        return ok(f"grace periods are expedited while probes are removed ({settings})")
    if _setting("rcu_normal") == "1":
        remedy = "echo 0 > /sys/kernel/rcu_normal"
    elif os.geteuid() != 0:
        remedy = AS_ROOT
    elif os.statvfs("/sys").f_flag & os.ST_RDONLY:
        remedy = "mount -o remount,rw /sys"
    else:
        remedy = "--barrier expedited, if its interrupts do no harm here"
    return warn(f"removal with the ABIs event and perf is slow: {why} ({settings})", remedy)


def _setting(name: str) -> str:
    """The text of a file of /sys/kernel; CONFIG_TINY_RCU has no rcu_expedited and rcu_normal."""
    file = Path("/sys/kernel") / name
    return file.read_text().strip() if file.exists() else "absent"


def check_locked_memory() -> Finding:
    """Check the memory limit of BPF maps.

    Before Linux 5.11 maps count against RLIMIT_MEMLOCK, those of root too; later against the memory
    cgroup.
    """
    if host.kernel_version(os.uname().release) >= (5, 11):
        return ok("no limit: the cgroup is charged for maps")
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    status = Path("/proc/self/status").read_text()
    if host.CAP_SYS_RESOURCE in host.effective_capabilities(status):
        return ok("the limit is raised when probes are attached")
    if hard == resource.RLIM_INFINITY:
        return ok("no limit")
    return warn(f"{hard // 1024} KiB for maps: few probes fit", "ulimit -l unlimited")


def check_open_files() -> Finding:
    """Check the descriptor limit: the ABI perf needs one descriptor for each probe."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    detail = f"at most {hard}; the ABI perf needs one for each probe"
    return warn(detail, "ulimit -Hn 1048576") if hard <= _DEFAULT_OPEN_FILES else ok(detail)
