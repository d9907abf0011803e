"""Removal of stale objects: what a killed batchprobe process left in the kernel.

Links, perf events, programs and maps go with their process. Trace events and rcu_expedited stay,
so a guardian process removes them when its parent dies, and `sweep` removes those of any dead
process. May import `kernel`, `commit` and `sys`.
"""
