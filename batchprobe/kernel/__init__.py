# SPDX-License-Identifier: Apache-2.0
"""Facts about the running kernel, read from its files, and the text files of tracefs.

Everything here only reads, except for `tracefs`, which writes kprobe_events. Nothing here knows
function lists or BPF. This package may import `batchprobe.sys` and `batchprobe.errors`.
"""
