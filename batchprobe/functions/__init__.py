# SPDX-License-Identifier: Apache-2.0
"""The functions of the running kernel, and which of them a function list selects.

Symbols come from /proc/kallsyms, cached until the next boot; what can be probed comes from tracefs
and debugfs. `resolve` turns ProbeSpecs into Targets or reasons why not. This package may import
`batchprobe.kernel`, `batchprobe.funclist`, `batchprobe.sys`, `batchprobe.arch` and
`batchprobe.errors`.
"""
