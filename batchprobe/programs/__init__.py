# SPDX-License-Identifier: Apache-2.0
"""BPF as batchprobe loads it: C text, bytecode with open operands, and the maps of a kernel object.

`source` composes the text of bpf/ with an action and filters, `compiler` makes bytecode of it with
bcc, `shipped` reads bytecode that was compiled ahead, `probe_maps` holds the maps that a loaded
program works on. `tasks` runs programs that follow tasks, `process_tree` those that follow a tree
of processes. Knows nothing of probes. Imports `kernel`, `sys` and `arch`.
"""
