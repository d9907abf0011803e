# SPDX-License-Identifier: Apache-2.0
"""Removal of stale objects: what a killed batchprobe process left in the kernel.

Links, perf events, programs and maps are freed with their process. Trace events and rcu_expedited
stay: a guardian process removes them when its parent dies, and `sweep` removes those of any dead
process. The guardian also removes what a commit does not wait for. May import `kernel`, `commit`
and `sys`.
"""
