# SPDX-License-Identifier: Apache-2.0
"""The function list a user writes: its grammar, its entries, its files.

An entry says which functions it means, without knowing whether the kernel has any; `functions`
looks that up. This package may import `batchprobe.sys` and `batchprobe.errors`.
"""
