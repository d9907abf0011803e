# SPDX-License-Identifier: Apache-2.0
"""ia64 (Itanium): unsupported, because no ia64 kernel could run BPF programs on kprobes."""

from __future__ import annotations

from batchprobe.arch.base import Unsupported

__all__ = ["ARCH"]

# arch/ia64/Kconfig up to 6.6 selects HAVE_KPROBES, but neither HAVE_PERF_EVENTS nor
# HAVE_REGS_AND_STACK_ACCESS_API, which CONFIG_BPF_EVENTS and CONFIG_KPROBE_EVENTS depend on.
ARCH = Unsupported(
    "ia64 is not supported: its kernels had kprobes, but never CONFIG_PERF_EVENTS or"
    " CONFIG_KPROBE_EVENTS, so none could run a BPF program on a kprobe; Linux 6.7 removed ia64",
    remedy="on ia64, write the probes as a kernel module (Documentation/trace/kprobes.rst)",
)
